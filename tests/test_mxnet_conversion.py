"""Networks equal to MXNet's, and lossless conversion of checkpoints in both directions.

`data/mxnet_logits.json` contains outputs of MXNet 1.9.1 in float64. The tests generate the weights from their seeds.
If the folder `shared/reference/mxnet` exists, they compare the weights with MXNet's files.
"""

import dataclasses
import json
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from igcv.conversion import from_mxnet, to_mxnet
from igcv.data.preprocessing import MXNET
from igcv.models import build_model
from igcv.training import Recipe
from igcv.training.optimize import make_optimizer, set_learning_rate
from igcv.weights import save_weights
from igcv.weights.card import Card
from igcv.weights.foreign import names as mxnet_names
from igcv.weights.foreign.mxnet_files import read_params, write_params

LOGITS = json.loads((Path(__file__).parent / "data" / "mxnet_logits.json").read_text())["networks"]
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "mxnet"
with_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"needs the reference files in {REFERENCE}"
)
TOLERANCE = 1e-9  # largest difference by largest reference value, in float64

# Folder of the reference: our name, classes, seed of the weights, shape of the input.
NETWORKS = {
    "igcv3_1.0": ("igcv3_d_100", 1000, 11, (2, 3, 224, 224)),
    "mobilenetv2_1.0": ("mobilenetv2_100_mxnet", 1000, 13, (2, 3, 224, 224)),
    "igcv1_plain_d20_L24M2_cifar10": ("igcv1_l24m2_d20", 10, 15, (4, 3, 32, 32)),
    "igcv1_resnet_d20_L8M4_cifar100": ("igcv1_l8m4_d20_ident", 100, 17, (4, 3, 32, 32)),
    "igcv1_imagenet18_L4M2_growL": ("igcv1_l4m2_imagenet18", 1000, 19, (2, 3, 224, 224)),
    "igcv1_imagenet18_L4M4_growM": ("igcv1_l4m4_imagenet18", 1000, 20, (2, 3, 224, 224)),
}
SMALL = "igcv1_plain_d20_L24M2_cifar10"


def mxnet_shapes(model, num_classes):
    """Return the shapes by MXNet's names, in the order of a checkpoint."""
    with torch.device("meta"):
        tensors = build_model(model, num_classes).state_dict()
    form = mxnet_names.naming_of(tensors)
    shapes = {
        mxnet_names.prefixed(mxnet_names.to_mxnet(name, form)): tuple(tensors[name].shape)
        for name in mxnet_names.graph_order(tensors)
    }
    return dict(sorted(shapes.items(), key=lambda entry: entry[0][:4]))


def seeded_weight(name, shape, random):
    """Return one array of the reference's checkpoints, by the rules in its README."""
    ranges = {"gamma": (0.6, 1.4), "beta": (-0.3, 0.3), "bias": (-0.3, 0.3)}
    ranges |= {"moving_mean": (-0.25, 0.25), "moving_var": (0.5, 1.5)}
    for ending, (low, high) in ranges.items():
        if name.endswith(ending):
            return np.round(random.uniform(low, high, shape) * 32) / 32
    gain = 1 if re.search(r":g[1-9]_.*(conv[12]|proj_conv|line_conv)_weight", name) else 2
    deviation = math.sqrt(gain / math.prod(shape[1:]))
    step = 2.0 ** round(math.log2(deviation / 4))
    return np.round(random.randn(*shape) * deviation / step) * step


def seeded_checkpoint(folder, path):
    model, num_classes, seed, _ = NETWORKS[folder]
    random = np.random.RandomState(seed)
    shapes = mxnet_shapes(model, num_classes)
    write_params(path, {k: seeded_weight(k, shape, random).astype(np.float32) for k, shape in shapes.items()})
    return path


def seeded_input(folder):
    _, _, seed, shape = NETWORKS[folder]
    return torch.from_numpy(np.round(np.random.RandomState(seed + 1).randn(*shape) * 64) / 64)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Return a function from the name of a folder to its checkpoint, created once."""
    directory = tmp_path_factory.mktemp("mxnet")
    return cache(lambda folder: seeded_checkpoint(folder, directory / f"{folder}.params"))


def relative_error(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@torch.no_grad()
def outputs(model, images, modules=()):
    """Return the logits of a network in float64, and the outputs of its modules averaged over space."""
    means = []
    for module in modules:
        model.get_submodule(module).register_forward_hook(lambda *args: means.append(args[2].mean((2, 3))))
    return model.double()(images).numpy(), means


@pytest.mark.parametrize("folder", NETWORKS)
def test_logits_are_those_of_mxnet(folder, checkpoint):
    classifier = from_mxnet(checkpoint(folder))
    assert (classifier.card.model, classifier.card.num_classes) == NETWORKS[folder][:2]
    logits, _ = outputs(classifier.model, seeded_input(folder))
    expected = np.array(LOGITS[folder]["logits"])
    assert relative_error(logits[:, :: LOGITS[folder]["every"]], expected) < TOLERANCE


@with_reference
@pytest.mark.parametrize("folder", NETWORKS)
def test_files_written_by_mxnet(folder, checkpoint, tmp_path):
    """MXNet's file converts and its graph matches; writing it, also from its seed, reproduces its bytes."""
    params, symbol = (REFERENCE / folder / f"{folder}-{end}" for end in ("0000.params", "symbol.json"))
    classifier = from_mxnet(params, symbol)
    save_weights(tmp_path / "w.safetensors", classifier.model.state_dict(), classifier.card)
    to_mxnet(tmp_path / "w.safetensors", tmp_path / "back.params")
    assert (tmp_path / "back.params").read_bytes() == params.read_bytes()
    assert checkpoint(folder).read_bytes() == params.read_bytes()
    reference = np.load(REFERENCE / folder / "reference.npz")
    assert (seeded_input(folder).numpy() == reference["input"]).all()
    assert (reference["logits"][:, :: LOGITS[folder]["every"]] == LOGITS[folder]["logits"]).all()


@with_reference
@pytest.mark.parametrize("folder", NETWORKS)
def test_all_logits_and_intermediate_outputs(folder):
    reference = np.load(REFERENCE / folder / "reference.npz")
    model = from_mxnet(REFERENCE / folder / f"{folder}-0000.params").model
    features = [name for name in reference.files if name.startswith("feature:")]
    assert len(features) == (3 if folder == "igcv3_1.0" else 0)
    modules = [re.sub(r"feature:seq-(\d)-block(\d)-shortcut", r"stages.\1.\2", name) for name in features]
    logits, means = outputs(model, torch.from_numpy(reference["input"]).double(), modules)
    assert relative_error(logits, reference["logits"]) < TOLERANCE
    for name, mean in zip(features, means, strict=True):
        assert relative_error(mean, reference[name]) < TOLERANCE


@with_reference
def test_six_steps_of_sgd():
    folder = REFERENCE / "igcv3_1.0_c10_sgd_trajectory"
    reference = np.load(folder / "reference.npz")
    model = from_mxnet(folder / "initial-0000.params", folder / "initial-symbol.json").model.double().train()
    recipe = Recipe(
        optimizer="sgd", nesterov=False, momentum=0.9, lr=0.045, weight_decay=4e-5, decay_rule="mxnet"
    )
    optimizer = make_optimizer(model, recipe)
    named = [mxnet_names.to_igcv(name, "seq") for name in reference["norm_names"].tolist()]
    for images, labels, loss, norms in zip(
        *(reference[name] for name in ("input", "label", "loss", "norms")), strict=True
    ):
        set_learning_rate(optimizer, recipe.lr, recipe.decay_rule)
        optimizer.zero_grad()
        logits = model(torch.from_numpy(images).double())
        found = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        found.backward()
        optimizer.step()
        state = model.state_dict()
        assert found.item() == pytest.approx(loss, rel=1e-8)
        assert [state[name].norm().item() for name in named] == pytest.approx(norms.tolist(), rel=1e-8)


def test_the_card_of_a_converted_checkpoint(checkpoint):
    card = from_mxnet(checkpoint(SMALL)).card
    assert (card.model, card.num_classes, card.multiplier, card.input_size) == (
        "igcv1_l24m2_d20",
        10,
        None,
        32,
    )
    as_stored = dataclasses.replace(MXNET, input_size=32, crop=1.0, pixels="as stored")
    assert card.preprocessing == as_stored.to_dict()
    assert card.source["file"] == f"{SMALL}.params" and card.source["format"] == "mxnet"
    assert len(card.source["sha256"]) == 64


@pytest.mark.parametrize(
    "name",
    [
        *("igcv1_l6m2_d8", "igcv1_l2m6_d8", "igcv1_l1m6_d5", "igcv1_l6m1_d5"),
        *("igcv1_l4m3_d8_ident", "igcv1_l3m4_d14_ident", "igcv1_l6m2_imagenet18", "igcv1_l2m4_imagenet18"),
        *("igcv3_g2g4_020", "igcv3_w_020_mxnet", "mobilenetv2_025"),
    ],
)
def test_random_weights_return_as_they_were(name, tmp_path):
    torch.manual_seed(0)
    model = build_model(name, 3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    size = 32 if "_d" in name and "igcv1" in name else 224
    save_weights(
        tmp_path / "w.safetensors",
        model.state_dict(),
        Card(model=name, num_classes=3, input_size=size, strides=model.strides),
    )
    to_mxnet(tmp_path / "w.safetensors", tmp_path / "w.params")
    back = from_mxnet(tmp_path / "w.params").model
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in back.state_dict().items())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(back(images), model.eval()(images))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_become_float32(dtype, checkpoint, tmp_path):
    arrays = {key: array.astype(dtype) for key, array in read_params(checkpoint(SMALL)).items()}
    write_params(tmp_path / "other.params", arrays)
    state = from_mxnet(tmp_path / "other.params").model.state_dict()
    assert state["stem.conv.weight"].dtype == torch.float32
    assert (state["stem.conv.weight"].numpy() == arrays["arg:g0_conv_weight"].astype(np.float32)).all()
