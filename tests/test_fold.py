"""Tests of folding: folded and trained networks agree; batch norms and permutations disappear."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igcv
from igcv.deploy import choose, plans
from igcv.deploy.folding.forms import FORMS
from igcv.deploy.folding.inverted import stream_layout
from igcv.deploy.folding.layers import pointwise
from igcv.deploy.folding.network import ChannelShuffle, FoldedNetwork
from igcv.errors import InputError
from igcv.machine import timing
from tests.conftest import randomized

NAMES = (
    "igcv3_d_025",
    "igcv3_d_069",  # widths that no vector width divides
    "igcv3_d_p50_050",
    "igcv3_d_half_025",
    "igcv3_g2g4_050",
    "igcv3_g4g2_050",
    "igcv3_w_140_mxnet",
    "mobilenetv2_100",
    "mobilenetv2_035_mxnet",
    "igcv1_l24m2_d20",
    "igcv1_l5m2_d20",  # widths that no vector width divides, without groups in the stream
    "igcv1_l8m4_d20_ident",
    "igcv1_l4m4_imagenet18",
    "igcv2_c64_d20",
    "igcv2_mobilenet_050",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_form_computes_the_same(name: str) -> None:
    model = randomized(name, input_size=224).double()  # with all strides, for less computation
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(images)
        for form in ("literal", *FORMS):
            for vector_width in (1, 8) if form != "literal" else (1,):
                folded = igcv.fold(model, form, vector_width=vector_width)
                error = (folded(images) - expected).abs().max() / expected.abs().max()
                assert error < 1e-10, f"{form}, vector width {vector_width}: {error}"


def test_float32_is_as_exact_as_the_trained_network() -> None:
    model = randomized("igcv3_d_050")
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(images.double())
        scale, plain = exact.abs().max(), (model(images) - exact).abs().max()
        for form in FORMS:
            found = (igcv.fold(model, form)(images) - exact).abs().max()
            assert found <= max(10 * plain, 1e-5 * scale), form


@pytest.mark.parametrize("form", FORMS)
def test_no_batch_norm_and_no_permutation_is_left(form: str) -> None:
    kinds = {type(module) for module in igcv.fold(randomized("igcv3_d_025"), form).modules()}
    assert not kinds & {nn.BatchNorm2d, ChannelShuffle}


def test_the_trained_network_stays_as_it_is() -> None:
    model = randomized("igcv1_l8m4_d20_ident").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = igcv.fold(model, "dense")
    for parameter in folded.parameters():
        parameter.zero_()
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_arithmetic_of_the_forms() -> None:
    """Multiply-adds of the pointwise layers, counted by hand for a block of 8 -> 48 -> 8 channels, two groups."""
    model = randomized("igcv3_d_100")
    literal = 24 * 144 / 2 * 2  # expansion and projection in the block of 24 channels

    def cost(form: str) -> int:
        block: Any = igcv.fold(model, form).blocks[2]
        convs = [
            layer for layer in block.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
        ]
        return sum(layer.weight.numel() for layer in convs)

    expected = {"literal": 1, "dense": 2, "group_dense": 1.5, "branches": 1.5, "sources": 1.5, "slices_4": 2}
    expected |= dict.fromkeys(("group_group", "group_branches", "sources_group", "partial_sums"), 1)
    assert {form: cost(form) / literal for form in expected} == expected


def test_forms_of_single_blocks() -> None:
    folded = igcv.fold(randomized("igcv3_d_025"), {"stages.2.1": "branches"})
    assert folded.forms["stages.2.1"] == "branches"
    assert set(folded.forms.values()) == {"branches", "dense"}


def test_a_layout_fills_each_group() -> None:
    assert stream_layout(6, 2, 4).tolist() == [0, 1, 2, -1, 3, 4, 5, -1]
    assert stream_layout(6, 2, 1).tolist() == list(range(6))


def test_a_grouped_layer_leaves_nothing_out() -> None:
    with pytest.raises(AssertionError, match="not block-diagonal"):
        pointwise(torch.ones(4, 4), None, groups=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: igcv.fold(igcv.fold(m, "dense")),
            "the network is already folded. Give the trained network",
        ),
        (lambda m: igcv.fold(nn.Linear(2, 2)), "model: got Linear, expected a network of igcv"),
        (lambda m: igcv.fold(m, "branch"), "unknown form 'branch'; did you mean 'branches'"),
        (lambda m: igcv.fold(m, {"stages.9.9": "dense"}), "unknown block 'stages.9.9'"),
        (lambda m: igcv.fold(m, {"stages.1.0": "auto"}), "unknown form 'auto'"),
        (
            lambda m: igcv.fold(m, "literal", vector_width=8),
            "vector_width: got 8, expected an integer >= 1, and 1 for",
        ),
        (lambda m: igcv.fold(m, engine="tensorflow"), "unknown engine 'tensorflow'"),
    ],
)
def test_wrong_input(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        change(randomized("igcv3_d_025"))


def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artificial times determine the plan, and the plan is measured once."""
    calls = []

    def times(probes: Sequence[nn.Module], shape: tuple[int, ...], **_: Any) -> list[float]:
        calls.append(shape)
        if isinstance(probes[0], FoldedNetwork):  # whole networks; the network of the fastest blocks is first
            return [1.0] + [2.0] * (len(probes) - 1)
        return [float(len(list(probe.modules()))) for probe in probes]  # blocks with few layers are fast

    monkeypatch.setattr(choose, "fastest_runs", times)
    monkeypatch.setattr(choose, "vector_widths", lambda blocks, engine: (1,))
    model = randomized("igcv3_d_025")
    folded = igcv.fold(model, engine="onnx", threads=1)
    assert set(folded.forms.values()) == {"dense"}
    count = len(calls)
    assert igcv.fold(model, engine="onnx", threads=1).forms == folded.forms and len(calls) == count
    igcv.fold(model, engine="onnx", threads=1, batch_size=2)
    assert len(calls) > count
    plans.plans_file().write_text("{damaged")
    igcv.fold(model, engine="onnx", threads=1)
    assert len(calls) > 2 * count
    count = len(calls)
    monkeypatch.setattr(plans, "__version__", "9.9.9")  # other versions may have other or faster forms
    igcv.fold(model, engine="onnx", threads=1)
    assert len(calls) > count


def test_who_may_win_is_measured_most_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an artificial clock and noise in every run, slow candidates get few measurements."""
    clock, calls = [0.0], Counter[int]()
    noise = random.Random(0)
    truth = [1.0, 1.01, 1.06, 1.5]

    def run(i: int) -> np.ndarray:
        calls[i] += 1
        clock[0] += truth[i] * (1 + max(0.0, noise.gauss(0, 0.3)))
        return np.empty(0)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    times = timing.shortest_times([partial(run, i) for i in range(4)])
    assert times.index(min(times)) == 0
    first, second, third = (count for count, _ in timing.ROUNDS)
    assert calls[0] == calls[1] == 2 + first + second + third
    assert calls[2] == 2 + first + second and calls[3] == 2 + first


@pytest.mark.parametrize("engine", ["torch", "onnx", "openvino"])
def test_auto_in_every_engine(engine: str) -> None:
    model = randomized("igcv1_l4m2_d20", input_size=16)  # only two forms, for speed
    images = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        folded = igcv.fold(model, engine=engine, threads=1)
        torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)
    assert set(folded.forms) == {f"stages.{i}.{j}" for i in range(3) for j in range(6)}
