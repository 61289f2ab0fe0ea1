"""Checks of a graph file against the network of its weights."""

import json

import pytest
import torch

from igcv.conversion import from_mxnet
from igcv.errors import InputError
from igcv.models import build_model
from igcv.weights.foreign import names as mxnet_names
from tests.test_mxnet_conversion import REFERENCE, SMALL, seeded_checkpoint, with_reference


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the checkpoint of a small network, igcv1_l24m2_d20."""
    return seeded_checkpoint(SMALL, tmp_path_factory.mktemp("mxnet") / "small.params")


def small_graph(**changes):
    """Return the graph of the small network, limited to its layers."""
    with torch.device("meta"):
        model = build_model("igcv1_l24m2_d20", 10)
    nodes = [{"op": "null", "name": "data", "inputs": []}]
    layers = dict(model.named_modules())
    names = mxnet_names.graph_order(model.state_dict())
    for name in (n for n in names if n.endswith("weight")):
        weights = [n for n in names if n.rpartition(".")[0] == name.rpartition(".")[0]]
        start = len(nodes)
        nodes += [{"op": "null", "name": mxnet_names.to_mxnet(n, "plain"), "inputs": []} for n in weights]
        op, attrs = layer_settings(layers[name.rpartition(".")[0]])
        node = nodes[start]["name"].rpartition("_")[0]
        inputs = [[start - 1, 0, 0], *([start + i, 0, 0] for i in range(len(weights)))]
        nodes.append({"op": op, "name": node, "attrs": attrs | changes.get(node, {}), "inputs": inputs})
        if op == "Convolution" and name.startswith("stages"):
            nodes.append({"op": "SwapAxis", "name": f"swap{start}", "inputs": [[len(nodes) - 1, 0, 0]]})
        if op == "BatchNorm":
            attrs = {"act_type": "relu"}
            nodes.append({"op": "Activation", "name": f"{node}_relu", "attrs": attrs, "inputs": [[0, 0, 0]]})
    return nodes


def layer_settings(layer):
    if isinstance(layer, torch.nn.Linear):
        return "FullyConnected", {"num_hidden": str(layer.out_features)}
    if isinstance(layer, torch.nn.BatchNorm2d):
        return "BatchNorm", {"eps": "1.99999994948e-05", "fix_gamma": "False"}  # a float32 with all digits
    attrs = {"num_filter": layer.out_channels, "kernel": layer.kernel_size, "pad": layer.padding}
    attrs |= {"stride": layer.stride, "num_group": layer.groups}
    return "Convolution", {key: str(value) for key, value in attrs.items()}


def test_a_graph_that_agrees(small, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"nodes": small_graph()}))
    assert from_mxnet(small, tmp_path / "s.json").card.model == "igcv1_l24m2_d20"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g1_b1_conv1": {"num_group": "12"}}, "num_group of the node g1_b1_conv1: got 12, expected 24"),
        ({"g0_conv": {"num_filter": "49"}}, "num_filter of the node g0_conv: got 49, expected 48"),
        (
            {"g2_b1_conv1": {"stride": "(1, 1)"}},
            r"g2_b1_conv1: got \(1, 1\), expected \(2, 2\).*strides of the training",
        ),
        ({"g3_b2_conv2": {"kernel": "oops("}}, r"kernel of the node g3_b2_conv2: got oops\("),
        ({"g0_bn": {"eps": "0.001"}}, "eps of the node g0_bn: got 0.001, expected 2e-05"),
        ({"g1_b2_bn": {"fix_gamma": "True"}}, "fix_gamma of the node g1_b2_bn: got True"),
        ({"fc_score": {"num_hidden": "11"}}, "num_hidden of the node fc_score: got 11, expected 10"),
    ],
)
def test_graphs_that_disagree(change, message, small, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"nodes": small_graph(**change)}))
    with pytest.raises(InputError, match=message):
        from_mxnet(small, tmp_path / "s.json")


def test_graphs_of_another_form(small, tmp_path):
    path, nodes = tmp_path / "s.json", small_graph()
    path.write_text(json.dumps({"nodes": [*nodes, {"op": "SwapAxis", "name": "x", "inputs": [[0, 0, 0]]}]}))
    with pytest.raises(InputError, match="number of SwapAxis nodes: got 37, expected 36"):
        from_mxnet(small, path)
    path.write_text(json.dumps({"nodes": [*nodes, {"op": "null", "name": "extra_weight", "inputs": []}]}))
    with pytest.raises(InputError, match="unexpected: extra_weight"):
        from_mxnet(small, path)
    twice = {
        "op": "Convolution",
        "name": "odd",
        "inputs": [[0, 0, 0], [4, 0, 0]],
    }  # node 4: a running average
    path.write_text(json.dumps({"nodes": [*nodes, twice]}))
    with pytest.raises(
        InputError, match=r"node odd of the graph: the network has no Convolution with the weight"
    ):
        from_mxnet(small, path)


@with_reference
def test_the_graph_of_another_network():
    params = REFERENCE / "igcv3_1.0" / "igcv3_1.0-0000.params"
    symbol = REFERENCE / "mobilenetv2_1.0" / "mobilenetv2_1.0-symbol.json"
    with pytest.raises(InputError, match="missing: seq-1-block2-depthwise-batchnorm_beta"):
        from_mxnet(params, symbol)
    symbol = REFERENCE / "igcv3_1.0_c10_sgd_trajectory" / "initial-symbol.json"
    with pytest.raises(InputError, match="num_hidden of the node fc: got 10, expected 1000"):
        from_mxnet(params, symbol)
