"""Tests of recorded strides: networks always use the strides of their training."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import pytest
import torch

import igcv
from igcv.data.preprocessing import CIFAR
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training import load_recipe
from igcv.training.phases import train_in
from igcv.weights import load_weights, read_tensors, save_weights
from igcv.weights.card import CARD_KEY, Card
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))
AT_16 = (1, 1, 1, 2, 2, 1, 1, 1)  # the same at 32 pixels
AT_64 = (1, 1, 2, 2, 2, 1, 1, 1)
OTHERS = (1, 1, 1, 2, 2, 1, 2, 1)  # strides at 32 pixels before igcv recorded strides


def saved(folder: Path, name: str, size: int, strides: tuple[int, ...] | None = None) -> Path:
    """Save the weights of a network."""
    model = igcv.create_model(name, 10, input_size=size, strides=strides)
    pre = replace(CIFAR, input_size=size).to_dict()
    card = Card(model=name, num_classes=10, input_size=size, strides=model.strides, preprocessing=pre)
    save_weights(folder / "some.safetensors", model.state_dict(), card)
    return folder / "some.safetensors"


def without_strides(file: Path) -> Path:
    """Change the file to the format of an older igcv."""
    from safetensors.torch import save_file

    tensors, metadata = read_tensors(file)
    card = json.loads(metadata[CARD_KEY])
    del card["strides"]
    save_file(tensors, file, {CARD_KEY: json.dumps(card)})
    return file


@pytest.mark.parametrize(
    "name, size, reason",
    [
        ("igcv3_d_025", 32, "its strides at 32 pixels have changed since"),
        ("igcv3_w_025", 16, "its strides at 16 pixels have changed since"),
        ("igcv3_g2g4_050", 64, "its strides at 64 pixels have changed since"),
        ("mobilenetv2_025", 64, "its strides at 64 pixels have changed since"),
        ("mobilenetv2_025_mxnet", 48, "its strides at 48 pixels have changed since"),
        ("igcv3_d_p50", 32, "its number of blocks has changed since"),
        ("igcv3_d_p70", 224, "its number of blocks has changed since"),
        ("igcv3_d_p50_050", 224, "its number of blocks has changed since"),
    ],
)
def test_older_weights_of_another_network_are_refused(
    name: str, size: int, reason: str, tmp_path: Path
) -> None:
    file = without_strides(saved(tmp_path, name, size))
    message = (
        f"{re.escape(str(file))}: {name} was saved before igcv recorded strides, and {reason}.*Train it again"
    )
    with pytest.raises(InputError, match=message):
        igcv.load(file)


@pytest.mark.parametrize(
    "name, size",
    [
        ("igcv3_d_025", 65),
        ("mobilenetv2_025", 224),
        ("igcv1_l4m2_d20", 32),
        ("igcv2_c16_d5", 32),
        ("igcv2_mobilenet_025", 64),
    ],
)
def test_older_weights_of_the_same_network_stay_readable(name: str, size: int, tmp_path: Path) -> None:
    file = saved(tmp_path, name, size)
    strides = igcv.load(file).model.strides
    assert igcv.load(without_strides(file)).model.strides == strides
    assert load_weights(file)[1].strides == ()


def test_older_exported_files_are_refused(tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "some.onnx"
    assert not igcv_command(
        "export", saved(tmp_path, "igcv3_d_025", 32), "--out", file, "--form", "dense"
    ).status
    graph = onnx.load(file)
    [entry] = [entry for entry in graph.metadata_props if entry.key == CARD_KEY]
    card = json.loads(entry.value)
    assert card.pop("strides") == list(AT_16)
    entry.value = json.dumps(card)
    onnx.save(graph, file)
    ended = igcv_command("evaluate", file, "--data", "digits")
    assert ended.status == 2 and "some.onnx: igcv3_d_025 was saved before igcv recorded strides" in ended.err


def short_run(data: Path, out: Path, *settings: str, resume: bool = False) -> None:
    small = ["model=igcv3_d_025", f"data={data}", "augment=none", "batch_size=24", "epochs=1"]
    train_in(CPU, load_recipe(None, [*small, *settings]), out, resume=resume, quiet=True)


def test_a_run_records_its_strides(digit_folder: Path, tmp_path: Path) -> None:
    short_run(digit_folder, tmp_path / "run", "input_size=16")
    assert load_recipe(tmp_path / "run" / "recipe.toml").strides == AT_16
    _, card = load_weights(tmp_path / "run" / "last.safetensors")
    assert (card.strides, card.recipe["strides"]) == (AT_16, list(AT_16))
    assert igcv.load(tmp_path / "run").model.strides == AT_16


def test_a_run_resumes_with_its_own_strides_only(digit_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short_run(digit_folder, out, "input_size=16", f"strides={','.join(map(str, OTHERS))}")
    assert igcv.load(out).model.strides == OTHERS
    with pytest.raises(
        InputError, match=r"strides: got \(1, 1, 1, 2, 2, 1, 1, 1\), expected \(1, 1, 1, 2, 2, 1, 2, 1\)"
    ):
        short_run(digit_folder, out, "input_size=16", "epochs=2", resume=True)
    recipe = load_recipe(out / "recipe.toml", ["epochs=2"])
    assert train_in(CPU, recipe, out, resume=True, quiet=True)["epochs"] == 2
    assert igcv.load(out).model.strides == OTHERS


def test_an_older_run_is_not_resumed(digit_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short_run(digit_folder, out, "input_size=16")
    recipe = out / "recipe.toml"
    recipe.write_text(
        "".join(line for line in recipe.read_text().splitlines(True) if not line.startswith("strides"))
    )
    with pytest.raises(InputError, match="run: igcv3_d_025 was saved before igcv recorded strides"):
        train_in(CPU, load_recipe(recipe, ["epochs=2"]), out, resume=True, quiet=True)


@pytest.mark.parametrize(
    "size, settings, strides, told",
    [
        (64, (), AT_64, ", changed to 1,1,2,2,2,1,1,1"),  # another size: the strides of that size
        (16, (), OTHERS, ""),  # the same size: the strides of the weights
        (64, ("strides=1,1,1,2,2,1,2,1",), OTHERS, ""),  # the given strides
    ],
)
def test_weights_that_start_a_training(
    size: int,
    settings: tuple[str, ...],
    strides: tuple[int, ...],
    told: str,
    digit_folder: Path,
    tmp_path: Path,
    igcv_command: Igcv,
) -> None:
    start, out = saved(tmp_path, "igcv3_d_025", 16, OTHERS), tmp_path / "run"
    given = ("--model", "igcv3_d_025", "--data", digit_folder, "--init-from", start, "--out", out)
    ended = igcv_command(
        *(
            "train",
            "recipes/cifar_fast.toml",
            "augment=none",
            "batch_size=24",
            "epochs=1",
            "warmup_epochs=0",
            f"input_size={size}",
        ),
        *settings,
        *given,
    )
    assert ended.status == 0, ended.err
    line = f"starting from {start}: igcv3_d_025, 16 x 16 pixels, strides 1,1,1,2,2,1,2,1{told}; "
    assert line in ended.out
    assert igcv.load(out).model.strides == strides


def test_pretrained_networks_keep_the_strides_of_their_weights_at_their_size() -> None:
    assert igcv.create_model("igcv3_w_025", pretrained=True).strides == AT_16
    assert igcv.create_model("igcv3_w_025", pretrained=True, input_size=64).strides == AT_64
    assert igcv.create_model("igcv3_w_025", pretrained=True, strides=OTHERS).strides == OTHERS


@pytest.mark.parametrize("given, strides", [((), AT_16), (("--strides", "1,1,1,2,2,1,2,1"), OTHERS)])
def test_conversion_tells_the_strides(
    given: tuple[str, ...], strides: tuple[int, ...], tmp_path: Path, igcv_command: Igcv
) -> None:
    params, target = tmp_path / "x-0000.params", tmp_path / "x.safetensors"
    igcv_command("convert", saved(tmp_path, "igcv3_d_025", 32), params)
    ended = igcv_command("convert", params, target, "--input-size", "32", *given)
    assert ended.status == 0, ended.err
    assert f"32 x 32 pixels, strides {','.join(map(str, strides))}" in ended.out
    assert igcv.load(target).model.strides == load_weights(target)[1].strides == strides


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2", "strides: got 1,2, expected 8 numbers"),
        ("1,1,x", "--strides: got '1,1,x', expected integers separated by commas"),
        ("1,1,1,2,2,1,3,1", "strides: got 1,1,1,2,2,1,3,1, expected 8 numbers"),
    ],
)
def test_wrong_strides_are_explained(text: str, message: str, tmp_path: Path, igcv_command: Igcv) -> None:
    params = tmp_path / "x-0000.params"
    igcv_command("convert", saved(tmp_path, "igcv3_d_025", 32), params)
    ended = igcv_command("convert", params, tmp_path / "x.safetensors", "--strides", text)
    assert ended.status == 2 and message in ended.err


@pytest.mark.parametrize("strides", ["1,1,2", [1.5] * 8, [[1]] * 8])
def test_a_card_with_other_things_than_strides_is_refused(strides: object, tmp_path: Path) -> None:
    _, card = load_weights(saved(tmp_path, "igcv3_d_025", 32))
    with pytest.raises(InputError, match="expected integers"):
        Card.from_json(json.dumps(asdict(card) | {"strides": strides}), tmp_path)
