"""Networks: tables, builders and the catalog of names."""

from typing import TYPE_CHECKING

from igcv.models.blocks import (
    ConvNorm,
    GroupConv,
    InterleavedConv,
    InterleavedResidual,
    InvertedResidual,
    block_kind,
    channel_shuffle,
)
from igcv.models.catalog import build_model, default_input_size, list_models
from igcv.models.forms import FORMS, blocks_with_forms, set_form
from igcv.models.igcv1 import igcv1_cifar, igcv1_imagenet
from igcv.models.igcv2 import branch_widths, igcv2_cifar, igcv2_mobilenet
from igcv.models.network import Network, Options, strides_text
from igcv.renamed import old_names

__all__ = [
    "FORMS",
    "ConvNorm",
    "GroupConv",
    "InterleavedConv",
    "InterleavedResidual",
    "InvertedResidual",
    "Network",
    "Options",
    "block_kind",
    "blocks_with_forms",
    "branch_widths",
    "build_model",
    "channel_shuffle",
    "default_input_size",
    "igcv1_cifar",
    "igcv1_imagenet",
    "igcv2_cifar",
    "igcv2_mobilenet",
    "list_models",
    "set_form",
    "strides_text",
]

if not TYPE_CHECKING:  # type checkers reject the old names
    __getattr__ = old_names(__name__)
