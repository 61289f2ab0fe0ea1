"""Tests of the networks: published counts, dense equivalents of blocks, and a common contract for all names."""

import math

import pytest
import timm
import torch
from torch import nn
from torchvision.models import mobilenet_v2

import igcv
from igcv import InputError, list_models
from igcv.analysis import describe, model_cost
from igcv.deploy.folding.plan import FOLDABLE
from igcv.models import Options, branch_widths, channel_shuffle, default_input_size, igcv1_imagenet
from igcv.models.blocks import GroupConv, InterleavedConv, InvertedResidual
from igcv.models.igcv3 import igcv3
from igcv.weights.pretrained import create_model

TIMM_NAMES = [name for name in list_models() if name in timm.list_models("igcv*") or "mxnet" in name]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "name, classes, multiplier, expected",
    [  # counts of the reference checkpoints and of the networks in the papers
        ("igcv3_d_100", 1000, None, 3_491_688),
        ("igcv3_d_100", 10, None, 2_223_498),
        ("igcv3_d_100", 100, None, 2_338_788),
        ("igcv3_d", 10, 0.7, 1_234_296),
        ("igcv3_d_100", 1000, 1.4, 6_023_004),
        ("igcv3_d_140", 1000, None, 6_023_004),
        ("igcv3_w_100", 1000, None, 5_724_968),
        ("igcv3_g2g4_100", 1000, None, 3_063_304),
        ("mobilenetv2_100", 1000, None, 3_504_872),
        ("igcv1_l24m2_d20", 10, None, 155_962),
        ("igcv1_l8m4_d20_ident", 100, None, 164_100),
    ],
)
def test_parameter_counts(name: str, classes: int, multiplier: float | None, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name, classes, multiplier)) == expected


def test_the_originals_mobilenetv2_keeps_its_first_expansion() -> None:
    [name] = [name for name in list_models("mobilenetv2*") if "mxnet" in name]
    with torch.device("meta"):
        assert parameters(create_model(name)) == 3_505_960


@pytest.mark.parametrize("partitions, expected", [((4, 2), 85_356), ((4, 4), 311_928)])
def test_igcv1_imagenet_counts(partitions: tuple[int, int], expected: int) -> None:
    with torch.device("meta"):
        assert parameters(igcv1_imagenet(*partitions)) == expected


# Parameters and multiply-adds in millions at 32 and 64 pixels, each with 10 and 100 classes, counted by a separate
# script. Published with 100 classes: 166 M for 1.0x and 100 M for half depth (arXiv:1905.03672).
CIFAR_COSTS = {
    "mobilenetv2_100": [(2_236_682, 165.16, 174.99), (2_351_972, 165.28, 175.11)],
    "igcv3_d_100": [(2_223_498, 166.06, 174.32), (2_338_788, 166.18, 174.44)],
    "igcv3_d_half": [(1_379_722, 100.35, 108.61), (1_495_012, 100.46, 108.72)],
    "igcv3_d_p50": [(1_120_650, 84.30, 92.56), (1_235_940, 84.42, 92.67)],
    "igcv3_d_p70": [(1_549_450, 116.77, 125.02), (1_664_740, 116.88, 125.14)],
}


@pytest.mark.parametrize("name", CIFAR_COSTS)
def test_costs_of_the_cifar_networks(name: str) -> None:
    found = []
    for classes in (10, 100):
        small, larger = (model_cost(name, classes, size) for size in (32, 64))
        macs = (round(cost.multiply_adds / 1e6, 2) for cost in (small, larger))
        found.append((small.parameters, *macs))
    assert found == CIFAR_COSTS[name]


@pytest.mark.parametrize(
    "name, without_classifier, with_100_classes",
    [("igcv3_d_p50", 1.1, 1.2), ("igcv3_d_p70", 1.5, 1.7), ("igcv2_c1280_d20", 2.4, 2.9)],
)
def test_published_cifar_counts(name: str, without_classifier: float, with_100_classes: float) -> None:
    """The paper counts without the classifier; its repository most likely counts with 100 classes."""
    with torch.device("meta"):
        counts = [round(parameters(create_model(name, classes)) / 1e6, 1) for classes in (0, 100)]
    assert counts == [without_classifier, with_100_classes]


def test_three_halves_are_three_networks() -> None:
    """Networks with half the width, half the parameters, and the depth of MobileNetV2."""
    assert parameters(create_model("igcv3_d_050", 10)) == 717_338
    blocks = {name: [len(stage) for stage in create_model(name, 10).stages] for name in CIFAR_COSTS}
    assert blocks["igcv3_d_half"] == blocks["mobilenetv2_100"] == [1, 2, 3, 4, 3, 3, 1]
    assert blocks["igcv3_d_p50"] == [1, 2, 3, 3, 2, 2, 1]
    assert blocks["igcv3_d_p70"] == [1, 3, 4, 5, 5, 3, 1]
    assert create_model("igcv3_d_p50_050", 10).stages[3][0].project.conv.out_channels == 32


@pytest.mark.parametrize("width", ["050", "100", "140"])
def test_mobilenetv2_equals_timms(width: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(f"mobilenetv2_{width}"), timm.create_model(f"mobilenetv2_{width}")
    shapes = sorted(tuple(p.shape) for p in ours.parameters())
    assert shapes == sorted(tuple(p.shape) for p in theirs.parameters())


def test_mobilenetv2_computes_what_torchvisions_does() -> None:
    torch.manual_seed(0)
    ours, theirs = create_model("mobilenetv2_025", 7), mobilenet_v2(num_classes=7, width_mult=0.25)
    values = list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(ours.double().eval()(images), theirs.double().eval()(images))


def test_multiply_adds_of_the_papers() -> None:
    assert model_cost("igcv3_d_100").multiply_adds == pytest.approx(313e6, rel=0.005)
    assert model_cost("mobilenetv2_100").multiply_adds == pytest.approx(301e6, rel=0.005)


@pytest.mark.parametrize("partitions, billions", [("l4m32", 1.9), ("l16m16", 2.2), ("l100m2", 1.3)])
def test_multiply_adds_of_igcv1_on_imagenet(partitions: str, billions: float) -> None:
    """Table 4 of the IGCV1 paper."""
    cost = model_cost(f"igcv1_{partitions}_imagenet18")
    assert cost.multiply_adds == pytest.approx(billions * 1e9, rel=0.04)


def test_the_cost_is_that_of_the_networks_own_input() -> None:
    assert model_cost("igcv1_l24m2_d20") == model_cost("igcv1_l24m2_d20", input_size=32)
    assert model_cost("igcv3_d_025") == model_cost("igcv3_d_025", input_size=224)


def test_channel_shuffle_on_six_channels() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(channel_shuffle(x, 2), 3).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert channel_shuffle(x, 1) is x


def dense(conv: nn.Conv2d) -> torch.Tensor:
    """Return the (out, in) matrix of a pointwise group convolution, with zeros outside its blocks."""
    return torch.block_diag(*conv.weight.flatten(1).chunk(conv.groups))


@pytest.mark.parametrize("groups", [(2, 2), (2, 4), (3, 2), (1, 1)])
def test_igcv3_block_is_a_product_of_matrices(groups: tuple[int, int]) -> None:
    torch.manual_seed(1)
    block = InvertedResidual(12, 24, 12, groups=groups, shortcut=True, expand="linear").double().eval()
    x = torch.randn(2, 12, 5, 5, dtype=torch.float64)
    mix = torch.eye(24, dtype=torch.float64)[
        [g * (24 // groups[0]) + i for i in range(24 // groups[0]) for g in range(groups[0])]
    ]
    scale = 1 / math.sqrt(1 + 1e-5)  # a new batch norm in evaluation
    hidden = torch.einsum("oc,nchw->nohw", mix @ dense(block.expand.conv), x) * scale
    hidden = nn.functional.conv2d(hidden, block.depthwise.conv.weight, padding=1, groups=24) * scale
    expected = x + torch.einsum("oc,nchw->nohw", dense(block.project.conv), hidden.clamp(0, 6)) * scale
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("width", [16, 64, 416, 832])
def test_igcv2_branches_multiply_to_the_width(width: int) -> None:
    assert math.prod(branch_widths(width)) == width


def test_an_interleaved_convolution_reaches_every_output_once() -> None:
    """With all weights 1, each output counts its paths: one from each input (complementary condition)."""
    factors = [GroupConv(64, 3, 64), GroupConv(64, 1, 8), GroupConv(64, 1, 8)]
    conv = InterleavedConv(64, factors, act=None)
    for layer in conv.convs:
        nn.init.zeros_(layer.weight)
        layer.weight.data[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
    conv.norm = nn.Identity()
    paths = conv(torch.eye(64).reshape(64, 64, 1, 1)).flatten(1)
    assert torch.equal(paths, torch.ones(64, 64))


@pytest.mark.parametrize("name", list_models())
def test_contract(name: str) -> None:
    """Every network has a forward pass, gradients of all parameters, features and other numbers of classes."""
    torch.manual_seed(0)
    width = 0.25 if name.startswith(("igcv3", "mobilenet", "igcv2_mobilenet")) else None
    model = create_model(name, 10, width, input_size=32)
    images = torch.randn(2, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    features = model.eval().forward_features(images)
    assert features.shape[1] == model.num_features
    assert features.shape[2] == 32 // model.reduction
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(images), model.forward_head(features, pre_logits=True))
    again = create_model(name, 0, width, input_size=32)
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", list_models())
def test_every_block_can_be_folded_and_described(name: str) -> None:
    """A new block class needs an entry in `FOLDABLE` and a case in `describe`."""
    with torch.device("meta"):
        network = create_model(name)
    kinds = {type(block): block for stage in network.stages for block in stage}
    assert kinds.keys() <= FOLDABLE.keys()
    assert all(describe(block) for block in kinds.values())


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timm_builds_it(name: str) -> None:
    model = timm.create_model(name, num_classes=5, in_chans=1, global_pool="max", drop_rate=0.1)
    assert model.num_classes == 5
    assert model.get_classifier().out_features == 5
    assert model.default_cfg["input_size"] == (3, default_input_size(name), default_input_size(name))
    assert dict(model.named_modules())[model.default_cfg["first_conv"]].in_channels == 1


@pytest.mark.parametrize(
    "name", ["igcv3_d_050", "igcv2_mobilenet_100", "igcv1_l24m2_d20", "igcv1_l4m32_imagenet18"]
)
def test_timm_features_only(name: str) -> None:
    model = timm.create_model(name, features_only=True).eval()
    features = model(torch.randn(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == model.feature_info.channels()
    assert [64 // f.shape[2] for f in features] == model.feature_info.reduction()
    two = timm.create_model(name, features_only=True, out_indices=(0, 2))
    assert len(two(torch.randn(1, 3, 64, 64))) == 2


def test_timm_keeps_its_own_mobilenetv2() -> None:
    assert type(timm.create_model("mobilenetv2_050")).__module__.startswith("timm")


PUBLISHED = (2, 1, 2, 2, 2, 1, 2, 1)


@pytest.mark.parametrize(
    "name", ["igcv3_d_025", "igcv3_d_half_050", "igcv3_d_p50", "igcv3_g2g4_050", "mobilenetv2_035"]
)
@pytest.mark.parametrize(
    "size, strides, last_map",
    [
        (16, (1, 1, 1, 2, 2, 1, 1, 1), 4),
        (32, (1, 1, 1, 2, 2, 1, 1, 1), 8),
        (33, (1, 1, 2, 2, 2, 1, 1, 1), 5),
        (64, (1, 1, 2, 2, 2, 1, 1, 1), 8),
        (65, PUBLISHED, 3),
        (224, PUBLISHED, 7),
    ],
)
def test_strides_for_small_images(name: str, size: int, strides: tuple[int, ...], last_map: int) -> None:
    with torch.device("meta"):
        model = create_model(name, 10, input_size=size)
        assert model.forward_features(torch.empty(1, 3, size, size)).shape[-1] == last_map
    assert model.strides == strides
    assert model.reduction == math.prod(strides)


@pytest.mark.parametrize(
    "name, at_32, at_64, at_224",
    [
        ("igcv1_l24m2_d20", (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2)),
        ("igcv1_l8m4_d20_ident", (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2)),
        ("igcv2_c416_d20", (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2)),
        ("igcv2_mobilenet_100", (1, 1, 1, 2, 2, 2), (1, 1, 2, 2, 2, 2), (2, 1, 2, 2, 2, 2)),
        ("igcv1_l4m32_imagenet18", (1, 1, 2, 2, 2), (2, 1, 2, 2, 2), (4, 1, 2, 2, 2)),
    ],
)
def test_igcv1_and_igcv2_keep_their_strides(name: str, at_32: tuple, at_64: tuple, at_224: tuple) -> None:
    with torch.device("meta"):
        found = [create_model(name, 10, input_size=size).strides for size in (32, 64, 224)]
    assert found == [at_32, at_64, at_224]


@pytest.mark.parametrize(
    "name, strides",
    [
        ("igcv3_d_025", (1, 1, 1, 2, 2, 1, 2, 1)),
        (
            "mobilenetv2_025",
            (1, 2, 1, 1, 1, 1, 1, 2),
        ),  # including the first block of a stage with equal input and output widths
        ("igcv2_c416_d5", (2, 1, 1, 2)),
        ("igcv1_l24m2_d20", (1, 2, 2, 2)),
        ("igcv1_l4m4_imagenet18", (4, 1, 1, 1, 2)),
    ],
)
def test_strides_as_given(name: str, strides: tuple[int, ...]) -> None:
    model = create_model(name, 3, input_size=64, strides=list(strides)).eval()
    side = 64 // math.prod(strides)
    assert model.strides == strides
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[2:] == (side, side)


def test_initialisation_is_gaussian_by_fan_in() -> None:
    torch.manual_seed(0)
    weight = create_model("igcv3_w_100").head.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 640), rel=0.01)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: create_model("igcv3_d_10"), r"unknown model 'igcv3_d_10'; did you mean 'igcv3_d_\d+'"),
        (lambda: create_model("resnet50"), "unknown model 'resnet50'.* .igcv models lists them all"),
        (lambda: create_model("igcv3_d_100", multiplier=0), "multiplier: got 0, expected a width multiplier"),
        (
            lambda: create_model("igcv1_l24m2_d20", multiplier=2),
            "multiplier: got 2, but the name .* sets the width",
        ),
        (
            lambda: create_model("igcv1_l24m2_d21"),
            "depth: got 21, expected 3n . 2 for an IGCV1 without shortcuts, for example 20",
        ),
        (lambda: create_model("igcv2_c416_d19"), "depth: got 19, expected 3n . 2 for an IGCV2"),
        (lambda: create_model("igcv3_g99g2_100"), "groups: got 99 and 2, expected two integers from 1 to 16"),
        (
            lambda: create_model("igcv3_d_100", num_classes=-1),
            "num_classes: got -1, expected an integer >= 0",
        ),
        (lambda: create_model("igcv3_d_100", input_size=3), "input_size: got 3, expected at least 4"),
        (
            lambda: create_model("igcv3_d_100", strides=(1, 1)),
            "strides: got 1,1, expected 8 numbers, 1 or 2 for the stem .* for example strides=2,1,2,2,2,1,2,1",
        ),
        (
            lambda: create_model("igcv3_d_100", strides=(4, 1, 2, 2, 2, 1, 2, 1)),
            "expected 8 numbers, 1 or 2 for",
        ),
        (lambda: create_model("igcv1_l4m4_imagenet18", strides=(1, 1, 1, 1, 3)), "1 or 2 or 4 for the stem"),
        (
            lambda: create_model("igcv3_d_100", in_chan=1),
            "unknown model option 'in_chan'; did you mean 'in_chans'",
        ),
        (
            lambda: create_model("igcv3_d_025")(torch.zeros(1, 3, 16, 16)),
            "image size: got 16 x 16 pixels, expected at least 32 x 32",
        ),
        (
            lambda: InvertedResidual(6, 12, 6, groups=(4, 2)),
            "groups: got 4, expected a divisor of the 6 input channels",
        ),
        (lambda: igcv3(groups=(0, 2), options=Options()), "groups: got 0 and 2"),
    ],
)
def test_wrong_input_is_explained(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_any_group_pair_that_divides() -> None:
    model = create_model("igcv3_g3g2_050", 10, input_size=32)
    block = model.stages[2][1]
    assert (block.expand.conv.groups, block.project.conv.groups) == (3, 2)


def test_listing() -> None:
    assert igcv.list_models("igcv2*") == ["igcv2_c1280_d20", "igcv2_c416_d20", "igcv2_mobilenet_100"]
