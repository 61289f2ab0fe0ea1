"""Tests of what timm and its users expect of a network, equal to timm's own tests of models where it has them."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
import torch
from timm.layers import DropPath as TimmDropPath
from timm.layers import calculate_drop_path_rates
from torch import nn

import igcv
from igcv import InputError
from igcv.models import InterleavedResidual, InvertedResidual, blocks_with_forms, set_form
from igcv.models.drop_path import DropPath
from igcv.weights.timm_names import TIMM_NAMES

# One small network per kind of block; the names of several lengths are those that timm.create_model builds.
KINDS = [
    "igcv3_d_025",
    "mobilenetv2_025",
    "igcv2_c32_d8",
    "igcv1_l4m2_d8",
    "igcv1_l4m2_d8_ident",
    "igcv1_l4m4_imagenet18",
]
RESIDUAL = ["igcv3_d_025", "mobilenetv2_025", "igcv1_l4m2_d8_ident", "igcv1_l4m4_imagenet18"]
TAGGED = sorted(name for name in timm.list_models(include_tags=True) if name.partition(".")[0] in TIMM_NAMES)
scripting = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def network(name: str, **options) -> nn.Module:
    """Return a network in float64 for 64 pixels, with batch norms that are not the identity."""
    torch.manual_seed(0)
    model = igcv.create_model(name, 5, input_size=64, **options).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, run: Callable | None = None) -> dict[str, torch.Tensor]:
    """Return the outputs and gradients of a training step, and the buffers after it."""
    model.train().zero_grad()
    torch.manual_seed(2)
    out = (run or model)(images())
    out.square().sum().backward()
    grads = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"out": out.detach(), **grads, **dict(model.named_buffers())}


def assert_same(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == found.keys()
    differing = [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
    assert differing == []


@pytest.mark.parametrize("name", TAGGED)
def test_configuration(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
        config = model.default_cfg
        features = model.forward_features(torch.empty(1, *config["input_size"]))
        assert model.forward_head(features, pre_logits=True).shape[1] == model.head_hidden_size
    assert features.shape[1:] == (model.num_features, *config["pool_size"])
    assert model.num_classes == config["num_classes"]
    assert {f"{config['first_conv']}.weight", f"{config['classifier']}.weight"} <= model.state_dict().keys()


@pytest.mark.parametrize(
    "options", [{"input_size": 64}, {"input_size": 80, "output_stride": 8}, {"strides": (1,) * 8}]
)
def test_configuration_of_another_resolution(options: dict) -> None:
    with torch.device("meta"):
        model = timm.create_model("igcv3_d_025", **options)
        features = model.forward_features(torch.empty(1, *model.default_cfg["input_size"]))
    assert model.default_cfg["input_size"][1] == options.get("input_size", 224)
    assert features.shape[2:] == model.default_cfg["pool_size"]


def test_a_users_configuration_wins() -> None:
    model = timm.create_model("igcv3_d_025", input_size=64, pretrained_cfg_overlay={"pool_size": (1, 2)})
    assert (model.default_cfg["input_size"], model.default_cfg["pool_size"]) == ((3, 64, 64), (1, 2))


@scripting
@pytest.mark.parametrize("form", ["literal", "auto"])
@pytest.mark.parametrize("name", KINDS)
def test_torchscript(name: str, form: str) -> None:
    model = network(name).eval()
    expected = model(images())
    set_form(model, form)
    torch.testing.assert_close(torch.jit.script(model)(images()), expected)
    torch.testing.assert_close(torch.jit.trace(model, images(1), check_trace=False)(images()), expected)


@scripting
@pytest.mark.parametrize("pool", ["", "max", "avgmax", "catavgmax"])
def test_torchscript_of_the_poolings(pool: str) -> None:
    model = network("igcv1_l4m2_d8", global_pool=pool).eval()
    model.reset_classifier(0)
    assert torch.equal(torch.jit.script(model)(images()), model(images()))


@pytest.mark.parametrize("form", ["literal", "auto"])
@pytest.mark.parametrize("name", KINDS)
def test_symbolic_trace(name: str, form: str) -> None:
    """A trace trains as the literal layers do, also if the network has another form."""
    model = network(name)
    traced = copy.deepcopy(model).train()
    set_form(traced, form)
    traced = torch.fx.symbolic_trace(traced)
    expected, found = step(model), step(traced)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor)
    torch.testing.assert_close(traced.eval()(images()), model.eval()(images()))


@scripting
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # torch.fx.GraphModule itself
@pytest.mark.parametrize("name", KINDS)
def test_torchscript_of_a_symbolic_trace(name: str) -> None:
    model = network(name).eval()
    traced = torch.jit.script(torch.fx.symbolic_trace(model))
    for inputs in (images(), images().contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(traced(inputs), model(inputs))


@pytest.mark.parametrize("kind", ["list", "dict", "hook", "getter", "fx"])
@pytest.mark.parametrize("name", ["igcv3_d_025", "igcv1_l8m4_d20_ident"])
def test_features_of_every_index(name: str, kind: str) -> None:
    whole = timm.create_model(name).eval()
    count = len(whole.feature_info)
    inputs = torch.randn(1, 3, 64, 64)
    _, expected = whole.forward_intermediates(inputs)
    for wanted in (None, 2, (-2, -1), *((i,) for i in range(count))):
        options = {} if wanted is None else {"out_indices": wanted}
        model = timm.create_model(name, features_only=True, feature_cls=kind, **options).eval()
        model.load_state_dict(renamed(whole, model))
        features = model(inputs)
        features = list(features.values()) if isinstance(features, dict) else features
        places = range(count)[-2:] if wanted in (2, (-2, -1)) else wanted or range(count)
        assert [f.shape[1] for f in features] == model.feature_info.channels()
        assert [64 // f.shape[2] for f in features] == model.feature_info.reduction()
        for place, feature in zip(places, features, strict=True):
            torch.testing.assert_close(feature, expected[place])


def renamed(whole: nn.Module, part: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of `whole` under the names of a wrapper of timm."""
    tensors = {name.replace(".", "_"): value for name, value in whole.state_dict().items()}
    prefixes = ("model_", "graph_module_", "")
    names = {name: name.replace(".", "_") for name in part.state_dict()}
    return {
        name: next(tensors[flat.removeprefix(p)] for p in prefixes if flat.removeprefix(p) in tensors)
        for name, flat in names.items()
    }


@pytest.mark.parametrize("name", KINDS)
def test_intermediates(name: str) -> None:
    model = network(name).eval()
    final, features = model.forward_intermediates(images(), norm=True)
    assert torch.equal(final, model.forward_features(images()))
    assert [f.shape[1] for f in features] == [level["num_chs"] for level in model.feature_info]
    assert [64 // f.shape[2] for f in features] == [level["reduction"] for level in model.feature_info]
    [first, last] = model.forward_intermediates(images(), indices=(0, -1), intermediates_only=True)
    assert torch.equal(first, features[0])
    assert torch.equal(last, features[-1])
    [only] = model.forward_intermediates(images(), indices=1, intermediates_only=True)
    assert torch.equal(only, features[-1])
    early, [found] = model.forward_intermediates(images(), indices=[0], stop_early=True)
    assert early is found
    assert torch.equal(found, features[0])


def test_stop_early_skips_the_later_stages() -> None:
    model = network("igcv3_d_025").eval()
    del model.stages[4][0].expand  # the fifth stage cannot run any more
    model.forward_intermediates(images(), indices=[0, 2], stop_early=True)
    with pytest.raises(AttributeError, match="expand"):
        model.forward_intermediates(images(), indices=[0, 2])


@pytest.mark.parametrize("name", KINDS)
def test_pruning(name: str) -> None:
    model = network(name).eval()
    expected = model.forward_intermediates(images(), indices=[1], intermediates_only=True)[0]
    kept = copy.deepcopy(model)
    assert kept.prune_intermediate_layers(len(model.feature_info), prune_head=False) == [
        *range(len(model.feature_info))
    ]
    assert torch.equal(kept(images()), model(images()))
    assert model.prune_intermediate_layers([1]) == [1]
    assert model.num_features == model.head_hidden_size == expected.shape[1]
    assert torch.equal(model(images()), expected)


@pytest.mark.parametrize("name", KINDS)
def test_checkpointing_changes_nothing(name: str) -> None:
    """Outputs, gradients, running statistics and their counts are bitwise equal, also with random depth."""
    options = {"drop_path_rate": 0.5} if name in RESIDUAL else {}
    model = network(name, drop_rate=0.3, **options)
    again = copy.deepcopy(model)
    again.set_grad_checkpointing()
    assert_same(step(model), step(again))
    assert_same(step(model, model.forward_features), step(again, again.forward_features))
    assert_same(step(model, features_of(model)), step(again, features_of(again)))
    again.set_grad_checkpointing(False)
    assert_same(step(model), step(again))


def features_of(model: nn.Module) -> Callable:
    return lambda x: torch.cat([f.mean((2, 3)) for f in model.forward_intermediates(x)[1]], 1)


def test_checkpointing_in_every_form() -> None:
    model = network("igcv3_d_025")
    for form in ("dense", "partial_sums"):
        again = copy.deepcopy(model)
        set_form(model, form)
        set_form(again, form)
        again.set_grad_checkpointing()
        assert_same(step(copy.deepcopy(model)), step(again))


def test_checkpointing_stores_less() -> None:
    stored = []
    for enable in (False, True):
        model = network("igcv3_d_025")
        model.set_grad_checkpointing(enable)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            model(images())
        stored.append(sum(sizes))
    assert stored[1] < stored[0] / 4


@pytest.mark.parametrize("name", RESIDUAL)
def test_drop_path_rates(name: str) -> None:
    model = network(name, drop_path_rate=0.3)
    blocks = [block for stage in model.stages for block in stage]
    found = [getattr(block.drop_path, "drop_prob", None) for block in blocks]
    expected = calculate_drop_path_rates(0.3, len(blocks))
    with_shortcut = [isinstance(b, InterleavedResidual) or b.shortcut for b in blocks]
    assert found == [
        rate if has and rate else None for rate, has in zip(expected, with_shortcut, strict=True)
    ]
    assert model.state_dict().keys() == network(name).state_dict().keys()
    plain = network(name, drop_path_rate=0.0)
    assert not any(isinstance(layer, DropPath) for layer in plain.modules())
    assert torch.equal(plain.eval()(images()), model.eval()(images()))


def test_drop_path_is_timms() -> None:
    x = torch.randn(64, 3, 2, 2)
    torch.manual_seed(3)
    expected = TimmDropPath(0.4)(x)
    torch.manual_seed(3)
    layer = DropPath(0.4)
    assert torch.equal(layer(x), expected)
    assert layer.eval()(x) is x
    assert repr(layer) == "DropPath(drop_prob=0.400)"


@pytest.mark.parametrize("kind", [InvertedResidual, InterleavedResidual])
@pytest.mark.parametrize("form", ["literal", "dense", "partial_sums"])
def test_drop_path_skips_blocks_of_images(kind: type, form: str) -> None:
    """In a block that is nearly always skipped, the output is the input, except where the image was kept."""
    name = "igcv3_d_025" if kind is InvertedResidual else "igcv1_l4m2_d8_ident"
    model = network(name, drop_path_rate=0.5).train()
    set_form(model, form)
    block = next(b for b in model.modules() if isinstance(b, kind) and isinstance(b.drop_path, DropPath))
    block.drop_path.drop_prob = 0.75
    first = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    x = torch.rand(32, first.in_channels, 8, 8, dtype=torch.float64)
    skipped = block.shortcut(x).relu() if kind is InterleavedResidual else x
    unchanged = (block(x) == skipped).flatten(1).all(1).sum().item()
    assert 16 <= unchanged < 32


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "name", ["igcv3_d_025", "mobilenetv2_025", "igcv2_mobilenet_025", "igcv1_l4m4_imagenet18"]
)
def test_a_dilated_network_has_the_features_of_the_strided_one(name: str, output_stride: int) -> None:
    """Every second or fourth pixel of its feature maps is a pixel of the strided network."""
    strided, dilated = (
        network(name, strides=published(name), **options).eval()
        for options in ({}, {"output_stride": output_stride})
    )
    assert (strided.reduction, dilated.reduction) == (32, output_stride)
    assert dilated.strides == strided.strides
    _, expected = strided.forward_intermediates(images())
    final, found = dilated.forward_intermediates(images())
    for level, full, sparse in zip(dilated.feature_info, found, expected, strict=True):
        skip = full.shape[2] // sparse.shape[2]
        assert full.shape[2] == 64 // level["reduction"]
        torch.testing.assert_close(full[..., ::skip, ::skip], sparse)
    torch.testing.assert_close(
        final[..., :: 32 // output_stride, :: 32 // output_stride], strided.forward_features(images())
    )


def published(name: str) -> tuple[int, ...]:
    with torch.device("meta"):
        return igcv.create_model(name).strides


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilations_are_timms(output_stride: int) -> None:
    torch.manual_seed(0)
    ours = igcv.create_model("mobilenetv2_100", 5, output_stride=output_stride).eval()
    theirs = timm.create_model("mobilenetv2_100", num_classes=5, output_stride=output_stride).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    inputs = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(
        ours.forward_features(inputs), theirs.forward_features(inputs), rtol=1e-4, atol=1e-4
    )
    assert [level["reduction"] for level in ours.feature_info] == [
        level["reduction"] for level in theirs.feature_info
    ]


@pytest.mark.parametrize(
    "name, output_stride", [("igcv3_d_025", 8), ("igcv1_l4m2_d8", 8), ("igcv2_c32_d8", 16)]
)
def test_no_dilation_where_the_stride_is_not_larger(name: str, output_stride: int) -> None:
    plain, model = network(name), network(name, output_stride=output_stride)  # 64 pixels end at 8 x 8
    assert all(conv.dilation == (1, 1) for conv in model.modules() if isinstance(conv, nn.Conv2d))
    assert model.feature_info == plain.feature_info
    assert torch.equal(model.eval()(images()), plain.eval()(images()))


def test_training_forms_of_a_dilated_network() -> None:
    """Blocks with dilations stay literal; the other blocks have their forms, and nothing else changes."""
    model = network("igcv3_d_025", strides=published("igcv3_d_025"), output_stride=16)
    formed = copy.deepcopy(model)
    chosen = set_form(formed, "dense")
    literal = [name for name, block in formed.named_modules() if getattr(block, "form", "") == "literal"]
    assert 0 < len(chosen) < len(blocks_with_forms(network("igcv3_d_025")))
    assert literal
    assert not chosen.keys() & set(literal)
    expected, found = step(model), step(formed)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor)


def test_a_dilated_network_is_not_folded() -> None:
    model = network("igcv3_d_025", strides=published("igcv3_d_025"), output_stride=16)
    with pytest.raises(
        InputError, match="got a network with dilated convolutions, expected one built without output_s"
    ):
        igcv.fold(model, "dense")


def test_folding_leaves_out_drop_path() -> None:
    model = network("igcv3_d_025", drop_path_rate=0.5).eval()
    torch.testing.assert_close(igcv.fold(model, "dense")(images()), model(images()))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: igcv.create_model("igcv3_d_025", output_stride=12),
            "output_stride: got 12, expected 8, 16 or 32",
        ),
        (
            lambda: igcv.create_model("igcv3_d_025", drop_path_rate=1),
            "drop_path_rate: got 1, expected a number >= 0 and < 1",
        ),
        (
            lambda: igcv.create_model("igcv2_c32_d8", drop_path_rate=0.1),
            "drop_path_rate: got 0.1, expected 0 for a netw",
        ),
        (
            lambda: timm.create_model("igcv2_c416_d20", features_only=True, out_indices=(0, 1, 2, 3, 4)),
            r"out_indices: got \(0, 1, 2, 3, 4\), expected a number of levels from 1 to 3, or indices from -3 to 2",
        ),
        (
            lambda: network("igcv3_d_025").forward_intermediates(images(), [7]),
            r"indices: got \[7\], expected a number",
        ),
        (
            lambda: network("igcv3_d_025").forward_intermediates(images(), 0),
            "indices: got 0, expected a number of levels",
        ),
        (
            lambda: network("igcv3_d_025").prune_intermediate_layers([]),
            r"indices: got \[\], expected a number of levels",
        ),
        (
            lambda: network("igcv3_d_025").forward_intermediates(images(), output_fmt="NHWC"),
            "output_fmt: got 'NHWC', expected 'NCHW'",
        ),
        (lambda: network("igcv3_d_025").forward_intermediates(images(1, 4)), "image size: got 4 x 4 pixels"),
    ],
)
def test_wrong_values_are_explained(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_layer_decay_falls_towards_the_input() -> None:
    from timm.optim import param_groups_layer_decay

    model = network("igcv3_d_025", drop_path_rate=0.1)
    groups = param_groups_layer_decay(model, layer_decay=0.9)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    blocks = [scales[id(block.project.conv.weight)] for stage in model.stages for block in stage]
    assert scales[id(model.classifier.weight)] == 1
    assert scales[id(model.stem.conv.weight)] < blocks[0]
    assert all(math.isclose(a, 0.9 * b) for a, b in pairwise(blocks))
