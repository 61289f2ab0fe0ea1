"""Recognition of a checkpoint's network, and refusal of damaged files, other networks and other graphs."""

import numpy as np
import pytest
import torch

from igcv.conversion import from_mxnet, to_mxnet
from igcv.errors import InputError
from igcv.models import build_model
from igcv.weights import save_weights
from igcv.weights.card import Card
from igcv.weights.foreign import names as mxnet_names
from igcv.weights.foreign.mxnet_files import read_params, write_params
from igcv.weights.foreign.recognize import recognize
from tests.test_mxnet_conversion import SMALL, mxnet_shapes, seeded_checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the checkpoint of a small network, igcv1_l24m2_d20."""
    return seeded_checkpoint(SMALL, tmp_path_factory.mktemp("mxnet") / "small.params")


# Hand-computed: stem, stages, expansions of the stages' first blocks, head. At 0.7 stage 1 has 24 * 0.7 = 16.8
# -> 17 -> 18 channels; scaled again, 12.6 -> 13 is odd and becomes 18 + 1 = 19, and 19 * 6 = 114.
ORIGINAL_WIDTHS = {
    "igcv3_d_070_mxnet": (
        22,
        [12, 18, 22, 46, 68, 112, 224],
        [22, 8 * 6, 19 * 6, 23 * 6, 32 * 6, 48 * 6, 78 * 6],
        1280,
    ),
    "igcv3_d_140_mxnet": (
        46,
        [22, 34, 46, 90, 134, 224, 448],
        [46, 23 * 6, 48 * 6, 64 * 6, 126 * 6, 188 * 6, 314 * 6],
        1793,
    ),
    "igcv3_g2g4_070_mxnet": (
        24,
        [12, 20, 24, 48, 68, 112, 224],
        [24, 8 * 6, 16 * 6, 20 * 6, 36 * 6, 48 * 6, 80 * 6],
        1280,
    ),
}


@pytest.mark.parametrize("name", ORIGINAL_WIDTHS)
def test_widths_of_the_original_code(name):
    with torch.device("meta"):
        model = build_model(name)
    found = (
        model.stem.conv.out_channels,
        [stage[-1].project.conv.out_channels for stage in model.stages],
        [stage[0].depthwise.conv.out_channels for stage in model.stages],
        model.num_features,
    )
    assert found == ORIGINAL_WIDTHS[name]
    assert [stage[1].depthwise.conv.out_channels for stage in model.stages if len(stage) > 1] == [
        6 * width for width in found[1][1:6]
    ]


def test_original_widths_differ_with_a_multiplier_only():
    with torch.device("meta"):
        for name in ("igcv3_d", "igcv3_w", "igcv3_g2g4"):
            plain, original = (build_model(f"{name}_100{end}").state_dict() for end in ("", "_mxnet"))
            assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in original.items()}
        with pytest.raises(InputError, match="without channels in the authors' widths"):
            build_model("igcv3_d_005_mxnet")


RECOGNIZED = [
    *("igcv3_d_100", "igcv3_d_069", "igcv3_d_070_mxnet", "igcv3_d_140_mxnet", "igcv3_w_100"),
    *("igcv3_d_half", "igcv3_d_half_075", "igcv3_w_050", "igcv3_w_035_mxnet"),
    *("igcv3_d_p50", "igcv3_d_p50_050", "igcv3_d_p70_140", "igcv3_d_p70_140_mxnet"),
    *("igcv3_g2g4_100", "igcv3_g2g4_070_mxnet", "igcv3_g4g2_060"),
    *("igcv3_g1g8_100", "mobilenetv2_100", "mobilenetv2_140", "mobilenetv2_035", "mobilenetv2_100_mxnet"),
    *(
        "mobilenetv2_137_mxnet",
        "igcv1_l24m2_d38",
        "igcv1_l1m6_d8",
        "igcv1_l16m1_d8_ident",
        "igcv1_l3m5_d14_ident",
    ),
    *("igcv1_l6m2_imagenet18", "igcv1_l1m8_imagenet18", "igcv1_l16m16_imagenet18"),
]


@pytest.mark.parametrize("name", RECOGNIZED)
def test_recognizes(name):
    shapes = {key[4:]: shape for key, shape in mxnet_shapes(name, 7).items()}
    found = recognize(shapes)
    assert (found.model, found.num_classes, found.original_widths) == (name, 7, name.endswith("_mxnet"))


def test_half_depth_and_half_of_the_wide_network_differ_in_stem_and_first_block_only():
    half, wide = mxnet_shapes("igcv3_d_half_100", 10), mxnet_shapes("igcv3_w_050", 10)
    assert half.keys() == wide.keys()
    different = {key.partition(":")[2] for key in half if half[key] != wide[key]}
    assert all(name.startswith(("first-3x3-conv", "seq-0-block0")) for name in different)
    assert {"first-3x3-conv-conv2d_weight", "seq-0-block0-exp-conv2d_weight"} <= different


def test_of_equal_networks_the_rounder_multiplier_is_recognized():
    same = [{k[4:]: v for k, v in mxnet_shapes(f"mobilenetv2_{p}", 10).items()} for p in ("049", "050")]
    assert same[0] == same[1]
    assert recognize(same[0]).model == "mobilenetv2_050"


def changed(small, tmp_path, change):
    """Return the small checkpoint with changed arrays."""
    arrays = read_params(small)
    change(arrays)
    write_params(tmp_path / "changed.params", arrays)
    return tmp_path / "changed.params"


def test_missing_and_left_over_tensors_are_listed(small, tmp_path):
    def change(arrays):
        arrays["arg:g1_b1_bn_scale"] = arrays.pop("arg:g1_b1_bn_gamma")
        del arrays["aux:g3_b6_bn_moving_var"]

    path = changed(small, tmp_path, change)
    listed = r"missing: g1_b1_bn_gamma, g3_b6_bn_moving_var; unexpected: g1_b1_bn_scale"
    with pytest.raises(InputError, match=listed):
        from_mxnet(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.update({"g0_x": a.pop("arg:g0_bn_beta")}), "got 'g0_x', expected arg:NAME"),
        (
            lambda a: a.update({"arg:g0_bn_moving_var": a.pop("aux:g0_bn_moving_var")}),
            "got 'arg:g0_bn_moving_var', expected",
        ),
        (
            lambda a: a.update({"arg:fc_score_bias": np.zeros(10, np.int32)}),
            "data type of arg:fc_score_bias: got int32",
        ),
        (lambda a: a.pop("arg:fc_score_weight"), "fc_score_weight: missing, expected 2 dimensions"),
        (lambda a: a.update({"arg:g1_b1_conv1_weight": np.zeros((0, 2, 3, 3), np.float32)}), r"shape \(0, 2"),
        (
            lambda a: a.update({"arg:g2_b3_conv2_weight": np.zeros((96, 12, 1, 1), np.float32)}),
            r"igcv1_l24m2_d20 differs: shape of g2_b3_conv2_weight: got \(96, 12, 1, 1\), expected \(96, 24, 1, 1\)",
        ),
        (lambda a: a.pop("arg:g3_b6_conv1_weight"), "missing: g3_b6_conv1_weight"),
    ],
)
def test_damaged_checkpoints(change, message, small, tmp_path):
    with pytest.raises(InputError, match=message):
        from_mxnet(changed(small, tmp_path, change))


def test_other_networks_are_refused(tmp_path):
    write_params(tmp_path / "other.params", {"arg:conv1_weight": np.zeros((8, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match="got conv1_weight, expected names of IGCV1, IGCV3 or MobileNetV2"):
        from_mxnet(tmp_path / "other.params")
    shapes = {key[4:]: shape for key, shape in mxnet_shapes("igcv3_d_100", 10).items()}
    with pytest.raises(InputError, match=r"blocks per stage: got \(1, 4, 6, 8, 6, 5, 1\)"):
        recognize({key: shape for key, shape in shapes.items() if not key.startswith("seq-5-block5")})
    with pytest.raises(InputError, match=r"the similar igcv3_d_100 differs: shape of seq-3-block2-exp"):
        recognize(shapes | {"seq-3-block2-exp-conv2d_weight": (383, 32, 1, 1)})


def test_igcv2_has_no_form_in_mxnet(tmp_path):
    card = Card(model="igcv2_c16_d5", num_classes=10, input_size=32, strides=(1, 1, 2, 2))
    save_weights(tmp_path / "w.safetensors", build_model(card.model, 10).state_dict(), card)
    with pytest.raises(InputError, match="got igcv2_c16_d5, expected IGCV1, IGCV3 or MobileNetV2"):
        to_mxnet(tmp_path / "w.safetensors", tmp_path / "w.params")


@pytest.mark.parametrize(
    "mxnet, form, igcv",
    [
        ("first-3x3-conv-batchnorm_moving_var", "seq", "stem.norm.running_var"),
        ("seq-1-block2-exp-conv2d_weight", "seq", "stages.1.2.expand.conv.weight"),
        ("seq-6-block0-linear-batchnorm_beta", "seq", "stages.6.0.project.norm.bias"),
        ("last-1x1-conv-conv2d_weight", "seq", "head.conv.weight"),
        ("fc_bias", "seq", "classifier.bias"),
        ("g3_b6_conv2_weight", "plain", "stages.2.5.convs.1.weight"),
        ("g1_b1_bn_gamma", "plain", "stages.0.0.norm.weight"),
        ("g2_b1_p0_line_conv_weight", "ident", "stages.1.0.shortcut.conv.weight"),
        ("g1_b3_p2_two2_conv1_weight", "ident", "stages.0.2.conv2.convs.0.weight"),
        ("g0_conv_weight", "imagenet18", "stem.0.conv.weight"),
        ("g1_b1_proj_bn_gamma", "imagenet18", "stages.0.0.shortcut.norm.weight"),
        ("g1_b1_conv1_conv1_weight", "imagenet18", "stages.0.0.conv1.convs.0.weight"),
        ("fc_score_weight", "imagenet18", "classifier.weight"),
    ],
)
def test_names(mxnet, form, igcv):
    assert mxnet_names.to_igcv(mxnet, form) == igcv
    assert mxnet_names.to_mxnet(igcv, form) == mxnet


@pytest.mark.parametrize(
    "name", ["seq-01-block0-exp-conv2d_weight", "seq-0-block0-exp-conv2d_bias", "g1_b1_conv1_weight", ""]
)
def test_unknown_names(name):
    with pytest.raises(InputError, match="has no counterpart in igcv in the naming 'seq'"):
        mxnet_names.to_igcv(name, "seq")
    with pytest.raises(InputError, match="unknown naming 'sec'; did you mean 'seq'"):
        mxnet_names.to_mxnet(name, "sec")
