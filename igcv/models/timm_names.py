"""The networks under timm's contract: timm.create_model knows their names once this module is imported."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import nn

from igcv.models.catalog import NAMES, build_model, default_input_size


def _timm_config(name: str) -> dict[str, Any]:
    """timm's description of a network: what its data and fine-tuning code asks for."""
    size = default_input_size(name)
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "crop_pct": 0.875 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv" if name.endswith("imagenet18") else "stem.conv",
        "classifier": "classifier",
    }


def _feature_levels(name: str, **options: Any) -> tuple[int, ...]:
    """Indices of all feature levels of a network, found without allocating its weights."""
    with torch.device("meta"):
        return tuple(range(len(build_model(name, **options).feature_info)))


def _timm_entrypoint(name: str) -> Callable[..., nn.Module]:
    """The function behind timm.create_model(name), features_only and out_indices among its arguments."""

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        kwargs.pop("cache_dir", None)
        levels = {key: kwargs[key] for key in ("input_size", "strides") if key in kwargs}
        feature_cfg: dict[str, Any] = {"flatten_sequential": True}
        if kwargs.get("features_only"):
            feature_cfg["out_indices"] = _feature_levels(name, **levels)
        return build_model_with_cfg(
            partial(build_model, name), name, pretrained, feature_cfg=feature_cfg, **kwargs
        )

    entrypoint.__name__ = name
    entrypoint.__module__ = __name__
    return entrypoint


# timm reads `default_cfgs` of the module that registers. Its own MobileNetV2 keeps its names there.
TIMM_NAMES = [name for name in NAMES if not name.startswith("mobilenetv2_") or name.endswith("_mxnet")]
default_cfgs = {name: _timm_config(name) for name in TIMM_NAMES}
for _name in TIMM_NAMES:
    register_model(_timm_entrypoint(_name))
