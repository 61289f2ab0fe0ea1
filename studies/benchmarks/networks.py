"""Builders of the networks in the benchmarks, by name; each takes the image size in pixels."""

from collections.abc import Callable

from torch import nn

import igcv
from igcv.models import Options
from igcv.models.igcv3 import DEEP
from igcv.models.inverted import HEAD, inverted_residual_network

COMPARED = ("igcv3_d_p50", "igcv3_d_half", "igcv3_d_100", "mobilenetv2_100")  # measured before and after


def of_depth(factor: float) -> Callable[[int], nn.Module]:
    """Return the builder of IGCV3-D with `factor` times its blocks."""

    def build(size: int) -> nn.Module:
        rows = [row._replace(n=max(1, round(row.n * factor))) for row in DEEP]
        options = Options(num_classes=10, input_size=size)
        return inverted_residual_network(
            rows, lambda c: c, HEAD, groups=(2, 2), expand="linear", first_expand="linear", options=options
        )

    return build


def with_our_strides(model: nn.Module, layers: tuple[nn.Module, ...], size: int) -> nn.Module:
    """Return `model` with igcv's strides for 32 pixels: the first, second and last stride of 2 become 1."""
    for layer in layers if size == 32 else ():
        assert isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        layer.stride = (1, 1)
    return model


def timm_mobilenetv2(size: int) -> nn.Module:
    """Build timm's MobileNetV2."""
    import timm

    model = timm.create_model("mobilenetv2_100", num_classes=classes(size))
    return with_our_strides(
        model, (model.conv_stem, model.blocks[1][0].conv_dw, model.blocks[5][0].conv_dw), size
    )


def torchvision_mobilenetv2(size: int) -> nn.Module:
    """Build torchvision's MobileNetV2."""
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=classes(size))
    return with_our_strides(
        model, (model.features[0][0], *(model.features[i].conv[1][0] for i in (2, 14))), size
    )


def pytorchcv_igcv3(size: int) -> nn.Module:
    """Build pytorchcv's igcv3_w1, the same network as igcv3_d_100; at 224 pixels only."""
    from pytorchcv.model_provider import get_model

    return get_model("igcv3_w1", pretrained=False, num_classes=classes(size))


def from_catalog(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a network of igcv."""
    return lambda size: igcv.create_model(name, classes(size), input_size=size)


def classes(size: int) -> int:
    """Return the number of classes: 10 at 32 pixels (CIFAR), otherwise 1000 (ImageNet)."""
    return 10 if size == 32 else 1000


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    **{name: from_catalog(name) for name in COMPARED},
    "igcv3_d_100 of double depth": of_depth(2),
    "timm mobilenetv2_100": timm_mobilenetv2,
    "torchvision mobilenet_v2": torchvision_mobilenetv2,
    "pytorchcv igcv3_w1": pytorchcv_igcv3,
}
