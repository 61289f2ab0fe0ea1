"""Names of earlier versions that still work, with a warning ("Rename something" in CONTRIBUTING.md)."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
UNTIL = {"0.2": "0.4"}  # version that renames -> version that removes the old name: two minor versions later


class Renamed(NamedTuple):
    """New name of something, and the version that removes the old name."""

    new: str
    until: str

    def warn(self, old: str) -> None:
        """Warn the caller's caller that uses the old name."""
        text = f"{old} is now {self.new}. The old name works until igcv {self.until}."
        warnings.warn(text, DeprecationWarning, stacklevel=3)


_IN_0_2 = {
    "igcv.analysis.Block": "igcv.analysis.BlockPattern",
    "igcv.models.create_model": "igcv.models.build_model",
    "igcv.mxnet.from_mxnet": "igcv.conversion.from_mxnet",
    "igcv.mxnet.to_mxnet": "igcv.conversion.to_mxnet",
    "igcv.pretrained.create_model": "igcv.weights.pretrained.create_model",
    "igcv.report.RunReport": "igcv.report.run.RunReport",
    "igcv.report.Stage": "igcv.report.run.StageCost",
    "igcv.report.draw_block": "igcv.report.drawing.draw_block",
    "igcv.report.images_of": "igcv.report.run.images_of",
    "igcv.report.report_page": "igcv.report.page.report_page",
    "igcv.training.Evaluation": "igcv.evaluation.Evaluation",
    "igcv.training.Process": "igcv.machine.processes.Process",
    "igcv.training.choose_device": "igcv.machine.processes.choose_device",
    "igcv.training.process_group": "igcv.machine.processes.process_group",
    "igcv.weights.find_released": "igcv.weights.weights_path",
    "igcv.weights.write_file": "igcv.writing.write_file",
}
RENAMED: Mapping[str, Renamed] = {old: Renamed(new, UNTIL["0.2"]) for old, new in _IN_0_2.items()}


def old_names(module: str, others: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """Return the function `__getattr__` of a module that had other names (PEP 562).

    Args:
        module: the name of the module.
        others: function for all other names, which raises AttributeError for an unknown name.
    """

    def attribute(name: str) -> Any:
        old = f"{module}.{name}"
        if old in RENAMED:
            RENAMED[old].warn(old)
            home, _, new = RENAMED[old].new.rpartition(".")
            return getattr(import_module(home), new)
        if others:
            return others(name)
        raise AttributeError(f"module '{module}' has no attribute '{name}'")

    return attribute


def old_argument(old: str, new: str, renamed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for a function that also accepts an argument by its old keyword."""
    renamed = Renamed(new, UNTIL[renamed_in])

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs and new not in kwargs:
                renamed.warn(f"the argument '{old}' of {function.__name__}()")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorated
