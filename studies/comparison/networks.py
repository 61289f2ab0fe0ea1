"""Networks of the comparison, with their published accuracies on ImageNet."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import igcv

SIZE = 224  # pixels
BASELINE = "mobilenetv2_100"
TIMM = "timm"  # results/results-imagenet.csv of timm, commit aa4b585 (2026-08-08)
TORCHVISION = "torchvision"  # IMAGENET1K_V1 in its documentation of weights
PAPER = "IGCV3 paper"  # arXiv:1806.00178, table 5: after the retrain stage


class Published(NamedTuple):
    """Published accuracy on the ImageNet validation images.

    Attributes:
        source: `TIMM`, `TORCHVISION` or `PAPER`.
        top1: percent.
        top5: percent.
        weights: name of the weights at the source.
        size: side of the images in pixels.
        distilled: whether the network was trained with the outputs of a larger network.
    """

    source: str
    top1: float
    top5: float
    weights: str = ""
    size: int = SIZE
    distilled: bool = False


class Network(NamedTuple):
    """Network of the comparison.

    Attributes:
        title: the usual name, with the width multiplier.
        name: name in igcv, timm or torchvision.
        year: year of the first version of the paper.
        build: builder of the network for inference, with random weights, for a number of classes.
        published: its accuracy; None if nobody has published one.
    """

    title: str
    name: str
    year: int
    build: Callable[[int], nn.Module]
    published: Published | None

    @property
    def interleaved(self) -> bool:
        """Whether the network is an IGCV."""
        return self.name.startswith("igcv")

    @property
    def ours(self) -> bool:
        """Whether igcv implements the network."""
        return self.name in igcv.list_models()


def from_timm(name: str, classes: int) -> nn.Module:
    """Build a network of timm for inference. Parallel branches of the training become one convolution."""
    import timm
    from timm.utils import reparameterize_model

    return reparameterize_model(timm.create_model(name, num_classes=classes).eval())


def from_torchvision(name: str, classes: int) -> nn.Module:
    """Build a network of torchvision."""
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return model.eval()


def from_igcv(name: str, classes: int) -> nn.Module:
    """Build a network of igcv."""
    return igcv.create_model(name, classes).eval()


def _timm(title: str, name: str, year: int, weights: str, top1: float, top5: float, **rest: int) -> Network:
    """Return a row for a network of timm."""
    return Network(
        title, name, year, partial(from_timm, name), Published(TIMM, top1, top5, f"{name}.{weights}", **rest)
    )


def _igcv(title: str, name: str, published: Published | None) -> Network:
    """Return a row for a network of igcv."""
    return Network(title, name, 2018, partial(from_igcv, name), published)


NETWORKS = (  # the best published weights that use no other images than ImageNet's training images
    _igcv("MobileNetV2 1.0x", BASELINE, Published(TIMM, 72.910, 91.000, "mobilenetv2_100.ra_in1k")),
    _igcv("IGCV3-D 1.0x", "igcv3_d_100", Published(PAPER, 72.2, 90.5)),
    _igcv("IGCV3-D half depth", "igcv3_d_half", None),
    _igcv("IGCV3-D 0.5x", "igcv3_d_p50", None),
    Network(
        *("ShuffleNetV2 1.0x", "shufflenet_v2_x1_0", 2018),
        partial(from_torchvision, "shufflenet_v2_x1_0"),
        Published(TORCHVISION, 69.362, 88.316, "IMAGENET1K_V1"),
    ),
    _timm("MNASNet 1.0", "mnasnet_100", 2018, "rmsp_in1k", 74.672, 92.108),
    _timm("MobileNetV3-Large 1.0", "mobilenetv3_large_100", 2019, "ra4_e3600_r224_in1k", 76.310, 92.842),
    _timm("GhostNet 1.0x", "ghostnet_100", 2019, "in1k", 73.958, 91.542),
    _timm("EfficientNet-Lite0", "efficientnet_lite0", 2020, "ra_in1k", 75.488, 92.508),
    _timm("MobileOne-S1", "mobileone_s1", 2022, "apple_in1k", 75.760, 92.788),
    _timm("FastViT-T8", "fastvit_t8", 2023, "apple_dist_in1k", 77.170, 93.274, size=256, distilled=True),
    _timm("RepViT-M0.9", "repvit_m0_9", 2023, "dist_450e_in1k", 79.058, 94.388, distilled=True),
    _timm("MobileNetV4-Conv-S", "mobilenetv4_conv_small", 2024, "e2400_r224_in1k", 73.756, 91.430),
)


def parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module) -> int:
    """Return the multiply-adds of a network for one image of `SIZE` pixels, counted by PyTorch."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, SIZE, SIZE))
    return counter.get_total_flops() // 2
