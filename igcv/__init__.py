"""Interleaved group convolution networks (IGCV1, IGCV2, IGCV3) in PyTorch: train, evaluate, convert, deploy.

>>> import igcv
>>> igcv.create_model("igcv3_d_100", num_classes=10).reduction
32

`import igcv` imports no submodule with dependencies: public names are resolved on first use. Once igcv and timm are
both imported, in any order, `timm.create_model` knows the networks of igcv.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from igcv.errors import InputError
from igcv.renamed import old_names
from igcv.version import __version__

if TYPE_CHECKING:
    from igcv.classifier import Classifier, Prediction, load
    from igcv.conversion import convert, from_mxnet, from_torch
    from igcv.deploy import Exported, export, fold
    from igcv.evaluation import Evaluation, ImagePrediction, evaluate, predict
    from igcv.models import list_models, set_form
    from igcv.training import TrainedRun, train, write_report
    from igcv.training.check import DataCheck, check
    from igcv.web import Page, write_page
    from igcv.weights.pretrained import create_model

_HOMES = {
    "igcv.classifier": ("Classifier", "Prediction", "load"),
    "igcv.conversion": ("convert", "from_mxnet", "from_torch"),
    "igcv.deploy": ("Exported", "export", "fold"),
    "igcv.evaluation": ("Evaluation", "ImagePrediction", "evaluate", "predict"),
    "igcv.models": ("list_models", "set_form"),
    "igcv.training": ("TrainedRun", "train", "write_report"),
    "igcv.training.check": ("DataCheck", "check"),
    "igcv.weights.pretrained": ("create_model",),
    "igcv.web": ("Page", "write_page"),
}
_MODULES = (
    *("analysis", "classifier", "conversion", "data", "deploy", "engines", "evaluation", "machine", "models"),
    *("mxnet", "pretrained", "report", "training", "weights", "web"),
)
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Classifier",
    "DataCheck",
    "Evaluation",
    "Exported",
    "ImagePrediction",
    "InputError",
    "Page",
    "Prediction",
    "TrainedRun",
    "__version__",
    "check",
    "convert",
    "create_model",
    "evaluate",
    "export",
    "fold",
    "from_mxnet",
    "from_torch",
    "list_models",
    "load",
    "predict",
    "set_form",
    "train",
    "write_page",
    "write_report",
]


def _public(name: str) -> Any:
    """Return a module or a public name, imported on first use."""
    if name in _MODULES:
        return import_module(f"igcv.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'igcv' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


__getattr__ = old_names(__name__, _public)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


class _WithTimm(MetaPathFinder, Loader):
    """Import hook that registers the networks of igcv with timm after the import of timm.models."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm.models":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        self._found, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._found.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._found
        self._found.exec_module(module)
        import_module("igcv.weights.timm_names")


if "timm.models" in sys.modules:
    import_module("igcv.weights.timm_names")
else:
    sys.meta_path.insert(0, _WithTimm())
