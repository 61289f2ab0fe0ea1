"""Tests of the connectivity conditions for catalog networks and invalid designs, of summaries and of drawings."""

import functools
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from igcv import InputError, list_models
from igcv.analysis import (
    BlockPattern,
    ConvFactor,
    Permutation,
    balance,
    blocks,
    connectivity,
    describe,
    network_cost,
    path_counts,
    summarize,
)
from igcv.models import InterleavedConv, InvertedResidual, Network, default_input_size
from igcv.models.igcv1 import igc
from igcv.models.igcv2 import igcv2_factors
from igcv.report.drawing import draw_block, layer_from, reduced
from igcv.weights.pretrained import create_model

# In released IGCV1 networks with shortcuts, the first block of a stage has the secondary groups of the previous stage.
# The width needs twice as many groups, so each pair of channels has two paths.
SECOND_PATH = {("stages.1.0.conv1", 2, 2), ("stages.2.0.conv1", 2, 2)}
# Half of the 46 or 22 expanded channels of these first blocks is odd, so two groups cannot have equal numbers.
EXCEPTIONS = {
    "igcv1_l24m2_d20_ident": SECOND_PATH,
    "igcv1_l8m4_d20_ident": SECOND_PATH,
    "igcv3_d_140": {("stages.0.0", 11, 12)},
    "igcv3_d_069": {("stages.0.0", 5, 6)},
}


@functools.cache
def network(name: str) -> Network:
    with torch.device("meta"):
        return create_model(name, 10)


def block(name: str, within: str) -> BlockPattern:
    [found] = [b for b in blocks(network(name)) if b.name == within]
    return found


@pytest.mark.parametrize("name", [*list_models(), "igcv3_d_069"])
def test_the_catalog_meets_its_conditions(name: str) -> None:
    described = blocks(network(name))
    assert {b.condition for b in described} == {
        "complementary" if name.startswith(("igcv1", "igcv2")) else "loose"
    }
    failing = {(b.name, *connectivity(b)[:2]) for b in described if not connectivity(b).holds}
    assert failing == EXCEPTIONS.get(name, set())
    assert not any(connectivity(b).cut_off for b in described)


@pytest.mark.parametrize("name", ["igcv3_d_100", "igcv3_g2g4_100", "igcv3_w_100", "mobilenetv2_100_mxnet"])
def test_super_channels_share_the_expanded_channels(name: str) -> None:
    for b in blocks(network(name)):
        first, *_, last = b.factors
        paths = first.out_channels // (first.groups * last.groups)  # E / (G1 * G2)
        assert connectivity(b)[:3] == (paths, paths, True)


def test_path_counts_of_a_tiny_block_by_hand() -> None:
    """IGCV1 with L = 2, M = 3: six channels, 3x3 in 2 groups of 3, 1x1 in 3 groups of 2."""
    primary, secondary = ConvFactor(6, 6, 2, 3), ConvFactor(6, 6, 3)
    a, b = [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]
    assert path_counts([primary]).tolist() == [a, a, a, b, b, b]
    assert path_counts([primary, Permutation(6, 2)]).tolist() == [a, b, a, b, a, b]
    complete = [primary, Permutation(6, 2), secondary, Permutation(6, 3)]
    assert path_counts(complete).tolist() == [[1] * 6] * 6
    # Without the permutation, only the middle pair of the 1x1 convolution mixes channels of both 3x3 groups.
    mixed = [1, 1, 1, 1, 1, 1]
    aa, bb = [2, 2, 2, 0, 0, 0], [0, 0, 0, 2, 2, 2]
    wrong = [primary, secondary]
    assert path_counts(wrong).tolist() == [aa, aa, mixed, mixed, bb, bb]
    found = connectivity(BlockPattern("wrong", tuple(wrong), "complementary"))
    assert found[:3] == (0, 2, False)
    assert found.cut_off == ((0, 4), (0, 5), (1, 4), (1, 5), (2, 4), (2, 5), (3, 0), (3, 1))


@pytest.mark.parametrize(
    "module",
    [
        InterleavedConv(12, igc(12, 3)),
        InterleavedConv(12, igc(24, 3)),
        InterleavedConv(12, igcv2_factors(12, 12, 1, 2)),
        InterleavedConv(12, igcv2_factors(12, 24, 1, 2)),
        InvertedResidual(8, 48, 12, groups=(2, 4), expand="linear"),
        InvertedResidual(6, 22, 6, groups=(2, 2), expand="linear"),
        InvertedResidual(4, 4, 6, expand="none"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_descriptions_agree_with_what_the_modules_compute(module: nn.Module) -> None:
    """With all weights 1 and no norms, each output is the number of paths from the input channel."""
    [described] = describe(module)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.eps = torch.finfo(torch.float32).tiny  # no effect; PyTorch 2.11 refuses 0
    channels = described.factors[0].in_channels
    with torch.no_grad():
        outputs = module.eval()(torch.eye(channels)[:, :, None, None])  # (inputs, C, 1, 1)
    assert np.array_equal(outputs[:, :, 0, 0].T.numpy(), path_counts(described.factors))


@pytest.mark.parametrize(
    "name, within, index",
    [
        ("igcv1_l24m2_d20", "stages.0.0", 0),
        ("igcv3_d_100", "stages.3.1", 0),
        ("igcv2_c416_d20", "stages.0.0", 0),
        ("igcv2_c416_d20", "stages.1.0", 1),
    ],
)
def test_a_permutation_left_out_is_caught(name: str, within: str, index: int) -> None:
    right = block(name, within)
    permutation = [f for f in right.factors if isinstance(f, Permutation)][index]
    wrong = replace(right, factors=tuple(f for f in right.factors if f is not permutation))
    found = connectivity(wrong)
    counts = path_counts(wrong.factors)
    assert not found.holds and found.paths_min == 0
    assert len(found.cut_off) == 8 and all(counts[o, i] == 0 for i, o in found.cut_off)


def test_pairs_are_cut_off_beyond_the_first_chunk_of_inputs() -> None:
    wide = BlockPattern("wide", (ConvFactor(1200, 4, 2), Permutation(4, 2), ConvFactor(4, 4, 4)), "loose")
    assert connectivity(wide).cut_off[:2] == ((0, 1), (0, 3))
    late = BlockPattern("late", (ConvFactor(1200, 1200, 1200, 3),), "loose")
    assert connectivity(late)[:3] == (0, 1, False)


def test_a_residual_block_is_two() -> None:
    names = [b.name for b in blocks(network("igcv1_l8m4_d20_ident"))]
    assert len(names) == 18 and names[6:8] == ["stages.1.0.conv1", "stages.1.0.conv2"]


def test_balance() -> None:
    found = balance(block("igcv2_c416_d20", "stages.0.0"))
    assert found is not None
    assert found[:2] == ((4, 8, 13), 416 * 25)
    assert found.optimum == pytest.approx(416 * 6 * 416 ** (1 / 6))  # 5 and 7 layers need more parameters
    assert found.excess == pytest.approx(416 * 25 / found.optimum - 1)
    wider = balance(block("igcv2_c416_d20", "stages.1.0"))
    assert wider is not None and wider[:2] == ((4, 8, 13), 832 * 25)
    pointwise = ConvFactor(9, 9, 3)
    factors = (ConvFactor(9, 9, 9, 3), pointwise, Permutation(9, 3), pointwise)
    perfect = balance(BlockPattern("of threes", factors, "complementary"))
    assert perfect is not None and perfect.excess == pytest.approx(0)
    assert balance(block("igcv1_l24m2_d20", "stages.0.0")) is None
    assert balance(block("igcv3_d_100", "stages.0.0")) is None


@pytest.mark.parametrize(
    "name",
    [
        "igcv1_l8m4_d20_ident",
        "igcv1_l100m2_imagenet18",
        "igcv2_mobilenet_100",
        "igcv3_d_p50",
        "mobilenetv2_025",
    ],
)
def test_a_summary_adds_up(name: str) -> None:
    size = default_input_size(name)
    rows = summarize(network(name), size)
    cost = network_cost(network(name), torch.empty(1, 3, size, size, device="meta"))
    assert (sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)) == cost
    for row in rows:
        failing = any(where.startswith(row.name) for where, *_ in EXCEPTIONS.get(name, ()))
        assert row.connectivity is None or row.connectivity.holds is not failing


def test_the_rows_of_a_summary() -> None:
    with torch.device("meta"):
        model = create_model("igcv3_d_100", 10, in_chans=1).train()
    stem, first, second, *_, head, classifier = summarize(model, 224)
    assert stem[:4] == ("stem", 0, 32, 112) and stem.multiply_adds == 9 * 32 * 112**2
    assert first[:4] == ("stages.0", 1, 16, 112) and first.activation_bytes == 4 * (32 + 32 + 16) * 112**2
    assert second[:4] == ("stages.1", 4, 24, 56) and second.condition == "loose"
    assert second.connectivity is not None and second.connectivity[:3] == (24, 36, True)
    assert head[:4] == ("head", 0, 1280, 7) and head.connectivity is None
    assert classifier[:6] == ("classifier", 0, 10, 1, 12_810, 12_800)
    assert model.training
    pooled = summarize(network("igcv1_l100m2_imagenet18"), 224)[0]
    assert pooled[:4] == ("stem", 0, 100, 56)  # after the max pooling of the stem


def test_a_summary_of_real_weights_leaves_them_alone() -> None:
    model = create_model("igcv2_c16_d5", 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert [row.name for row in summarize(model, 32)] == ["stem", "stages.0", "stages.1", "stages.2"]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(InputError, match="image size: got 2 x 2 pixels"):
        summarize(model, 2)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ConvFactor(6, 6, 4), "groups: got 4, expected a common divisor of the 6 input"),
        (lambda: Permutation(6, 4), "groups: got 4, expected a divisor of the 6 channels"),
        (
            lambda: path_counts([ConvFactor(6, 8, 2), Permutation(6, 2)]),
            "got 6 input channels, expected 8, the outputs of ConvFactor",
        ),
        (lambda: path_counts([]), "at least one factor"),
        (lambda: describe(nn.ReLU()), "module: got ReLU, expected an InterleavedConv"),
        (lambda: draw_block([("conv", 4, 4)], Path("x.svg")), "layer: got .* expected"),
        (lambda: draw_block([("permute", 4, 2)], Path("x.gif")), "ends in .svg, .png, .pdf"),
    ],
)
def test_errors_say_what_is_wrong(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        make()


def drawn_ids(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [found for element in root.iter() if (found := element.get("id"))]


def test_a_drawing_shows_every_channel_and_wire(tmp_path: Path) -> None:
    rows = [("conv", 6, 6, 2, 3), ("permute", 6, 2), ("conv", 6, 6, 3, 1), ("permute", 6, 3)]
    draw_block(rows, tmp_path / "block.svg", "IGCV1")
    ids = drawn_ids(tmp_path / "block.svg")
    for kind, count in (("dot", 5 * 6), ("box", 2 + 3), ("wire", 2 * 6)):
        assert sum(name.startswith(f"{kind}-") for name in ids) == count
    text = (tmp_path / "block.svg").read_text()
    for label in ("permutation", "3, G = 2", "1, G = 3", "all channels drawn", "IGCV1"):
        assert label in text
    # Wire 1 leads from the second channel of the first group to the third position, in the color of this group.
    wires = re.findall(
        r'<g id="wire-1-(\d)">\s*<path d="M \S+ (\S+)\s+L \S+ (\S+)\s*"[^>]*stroke: (#\w+)', text
    )
    heights = sorted({float(start) for _, start, *_ in wires})
    targets = {int(i): heights.index(float(end)) for i, _, end, _ in wires}
    assert targets == {0: 0, 1: 2, 2: 4, 3: 1, 4: 3, 5: 5}
    assert len({color for *_, color in wires[:3]}) == 1 and len({color for *_, color in wires}) == 2
    draw_block(rows, tmp_path / "again.svg", "IGCV1")
    assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize(
    "name, within, expected, caption",
    [
        (
            "igcv3_d_100",
            "stages.3.1",
            {"dot": 4 + 3 * 24 + 4, "box": 2 + 24 + 2, "wire": 24},
            "24 of 384 channels",
        ),
        ("igcv1_l24m2_d20", "stages.0.0", {"dot": 5 * 24, "box": 12 + 2, "wire": 48}, "12 of 24 groups"),
        (
            "igcv2_c416_d20",
            "stages.0.0",
            {"dot": 8 * 24, "box": 24 + 12 + 8 + 6, "wire": 72},
            "6 of 32 groups",
        ),
        (
            "mobilenetv2_100",
            "stages.2.0",
            {"dot": 4 + 2 * 24 + 5, "box": 1 + 24 + 1, "wire": 0},
            "24 of 144 channels",
        ),
    ],
)
def test_wide_blocks_are_drawn_reduced(
    tmp_path: Path, name: str, within: str, expected: dict[str, int], caption: str
) -> None:
    draw_block(block(name, within).rows(), tmp_path / "block.svg")
    ids = drawn_ids(tmp_path / "block.svg")
    assert {kind: sum(i.startswith(f"{kind}-") for i in ids) for kind in expected} == expected
    assert caption in (tmp_path / "block.svg").read_text()


@pytest.mark.parametrize("name", ["igcv1_l8m4_d20_ident", "igcv2_c416_d20", "igcv3_d_p50", "igcv3_g2g4_100"])
def test_reduced_forms_connect_as_their_blocks_do(name: str) -> None:
    for b in blocks(network(name)):
        factors = tuple(
            ConvFactor(*f) if f.kernel else Permutation(f.in_channels, f.groups)
            for f in reduced([layer_from(row) for row in b.rows()])
        )
        found, true = connectivity(replace(b, factors=factors)), connectivity(b)
        assert max(max(f.in_channels, f.out_channels) for f in factors) <= 24
        assert found.holds == true.holds
        assert b.condition == "loose" or found == true
