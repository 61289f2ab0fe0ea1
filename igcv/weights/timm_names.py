"""Registration of the networks with timm: importing this module makes their names known to timm.create_model.

timm and igcv both name weights NETWORK.TAG. `timm.create_model("igcv3_d_100.imagenet", pretrained=True)` loads the
weights `igcv3_d_100.imagenet` from the cache of igcv.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import nn

from igcv.data.preprocessing import Preprocessing
from igcv.models import Network
from igcv.models.catalog import NAMES, build_model, default_input_size
from igcv.models.levels import level_indices
from igcv.weights.card import Card
from igcv.weights.files import read_card
from igcv.weights.known import KNOWN, Known
from igcv.weights.released import released_weights

RESOLUTION = ("input_size", "strides", "output_stride")  # options that decide the sizes of the feature maps


def _timm_config(name: str) -> dict[str, Any]:
    """Return timm's configuration of a network, for its data and fine-tuning code."""
    size = default_input_size(name)
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": (7, 7) if size == 224 else (8, 8),
        "crop_pct": 0.875 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv" if name.endswith("imagenet18") else "stem.conv",
        "classifier": "classifier",
    }


def weights_config(name: str, images: Preprocessing, **others: Any) -> dict[str, Any]:
    """Return timm's configuration of trained weights, with their preprocessing."""
    return _timm_config(name) | {
        "crop_pct": images.crop,
        "interpolation": images.interpolation,
        "mean": images.mean,
        "std": images.std,
        **others,
    }


def _known_config(name: str, known: Known) -> dict[str, Any]:
    """Return timm's configuration of weights that can be downloaded."""
    origin = {"url": known.url, "license": known.license, "origin_url": known.source}
    return weights_config(name.partition(".")[0], known.preprocessing, **origin)


def _file_config(file: Path, card: Card) -> dict[str, Any]:
    """Return timm's configuration of a weights file of igcv."""
    images = Preprocessing.from_dict(card.preprocessing)
    built = _without_weights(card.model, input_size=card.input_size, strides=card.strides or None)
    return weights_config(
        card.model, images, file=str(file), num_classes=card.num_classes, **input_config(built)
    )


def input_config(network: Network) -> dict[str, Any]:
    """Return timm's configuration of the images of a network and of its last feature map."""
    size, last = network.input_size, math.ceil(network.input_size / network.reduction)
    return {"input_size": (3, size, size), "pool_size": (last, last)}


def _weights_file(name: str, config: Any) -> Path:
    """Return the weights file for a call of timm. The first call downloads the file."""
    # Imported here: `pretrained` imports timm, which may be importing this module.
    from igcv.weights.pretrained import weights_path

    tag = config if isinstance(config, str) else None
    return weights_path(f"{name}.{tag}" if tag else name)


def _without_weights(name: str, **options: Any) -> Network:
    """Return a network without values in its weights."""
    with torch.device("meta"):
        return build_model(name, **options)


def _names_a_file(config: Any) -> bool:
    """Return whether a configuration names its own weights."""
    return isinstance(config, dict) and any(
        config.get(key) for key in ("file", "state_dict", "url", "hf_hub_id")
    )


def _timm_entrypoint(name: str) -> Callable[..., nn.Module]:
    """Return the entry point of timm.create_model(name), with support for features_only and out_indices."""

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        kwargs.pop("cache_dir", None)
        given = dict(kwargs.pop("pretrained_cfg_overlay", None) or {})
        config = kwargs.get("pretrained_cfg")
        overlay: dict[str, Any] = {}
        # The name of released weights also gives the size and the classes of a network with random weights.
        wanted = pretrained or f"{name}.{config}" in _RELEASED
        if wanted and not _names_a_file(config) and not _names_a_file(given):
            file = _weights_file(name, config)
            card = read_card(file)
            overlay = _file_config(file, card)  # timm would load the URL, whose tensors have other names
            kwargs = {"num_classes": card.num_classes, "input_size": card.input_size, **kwargs}
            if kwargs["input_size"] == card.input_size:
                kwargs.setdefault("strides", card.strides or None)
        if resolution := {key: kwargs[key] for key in RESOLUTION if key in kwargs}:
            overlay |= input_config(_without_weights(name, **resolution))
        if kwargs.get("features_only"):
            levels = len(_without_weights(name, **resolution).feature_info)
            kwargs["out_indices"] = level_indices("out_indices", kwargs.get("out_indices"), levels)
        return build_model_with_cfg(
            partial(build_model, name),
            name,
            pretrained,
            feature_cfg={"flatten_sequential": True},
            pretrained_cfg_overlay=overlay | given,
            **kwargs,
        )

    entrypoint.__name__ = name
    entrypoint.__module__ = __name__
    return entrypoint


# timm reads `default_cfgs` of the registering module. The names of timm itself keep their meaning.
_RELEASED = released_weights()
_NETWORKS = dict.fromkeys([*NAMES, *(name.partition(".")[0] for name in _RELEASED)])
TIMM_NAMES = [name for name in _NETWORKS if not is_model(name)]
_WEIGHTS = {
    **{name: _known_config(name, known) for name, known in KNOWN.items()},
    **{name: _file_config(file, read_card(file)) for name, file in _RELEASED.items()},
}
# A star marks the default of a network without ImageNet weights, which has 1000 classes.
_PLAIN = [name for name in TIMM_NAMES if not any(known.startswith(f"{name}.") for known in KNOWN)]
default_cfgs = generate_default_cfgs(
    {name: config for name, config in _WEIGHTS.items() if name.partition(".")[0] in TIMM_NAMES}
    | {f"{name}.*": _timm_config(name) for name in _PLAIN}
)
for _name in TIMM_NAMES:
    register_model(_timm_entrypoint(_name))
