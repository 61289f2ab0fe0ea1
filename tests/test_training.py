"""Tests of training end to end on small real images: run folder, --resume, and use of the weights."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import igcv
from igcv.data.sources.open import open_source
from igcv.evaluation.accuracy import Evaluation, accuracy_of
from igcv.machine.processes import Process
from igcv.training import load_recipe, read_metrics
from igcv.training.loop import train_epoch
from igcv.training.nonfinite import first_nonfinite
from igcv.training.optimize import make_optimizer
from igcv.training.phases import train_in
from igcv.training.reporter import Silent
from igcv.training.trainer import Trainer
from igcv.weights import load_weights, read_tensors
from studies.soak.lives import ended
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))
SMALL = ["model=igcv3_w_025", "input_size=16", "batch_size=8", "augment=shift", "lr=0.05", "workers=0"]
EVERYTHING = [
    *(
        "schedule=constant",
        "mixup=0.2",
        "cutmix=0.5",
        "label_smoothing=0.1",
        "ema_decay=0.9",
        "accumulation=2",
    ),
    *("clip_grad_norm=1", "random_erasing=0.2", "randaugment=rand-m3-n1", "drop_rate=0.1", "seed=3"),
]


def run(data: Path, out: Path, *settings: str, resume: bool = False) -> dict:
    recipe = load_recipe(None, [*SMALL, f"data={data}", *settings])
    return train_in(CPU, recipe, out, resume=resume, quiet=True)


@pytest.fixture(scope="module")
def finished(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of twenty epochs."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(digit_folder, out, "epochs=20", "batch_size=6", "ema_decay=0.8")
    return out


def test_it_learns(finished: Path) -> None:
    rows = read_metrics(finished)
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2
    assert json.loads((finished / "summary.json").read_text())["best_top1"] >= 90


def test_a_run_leaves_everything(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("recipe.toml", "metrics.jsonl", "evaluation.json", "summary.json", "report.html", "tensorboard"),
        *(
            "last.safetensors",
            "best.safetensors",
            "state.safetensors",
            "state.previous.safetensors",
            ".lock",
            "data.json",
        ),
    }
    assert list((finished / "tensorboard").glob("events.*"))
    _, card = load_weights(finished / "best.safetensors")
    assert card.class_names == ("one", "zero")
    assert card.preprocessing["input_size"] == 16
    assert card.results["images"] == 10


def test_evaluate_agrees_with_the_log(finished: Path, igcv_command: Igcv) -> None:
    status, out, _ = igcv_command("evaluate", finished, "--json")
    figures = json.loads(out)
    assert status == 0
    assert figures["top1"] == pytest.approx(max(row["val_top1"] for row in read_metrics(finished)), abs=1e-3)
    assert set(figures["per_class"]) == {"one", "zero"}
    assert "lowest recall first" not in igcv_command("evaluate", finished).out


def test_evaluate_by_hand(finished: Path, digit_folder: Path) -> None:
    """Compare top-1 and loss with one image at a time; float32 does not resolve a loss near zero, float64 does."""
    classifier = igcv.load(finished)
    classifier.model.double()
    val = open_source(str(digit_folder)).val
    assert val is not None
    losses, hits = [], []
    for i in range(len(val)):
        image, label = val[i]
        with torch.no_grad():
            logits = classifier.model(classifier.transform(image)[None].double())[0]
        losses.append(-logits.log_softmax(0)[label].item())
        hits.append(int(logits.argmax()) == label)
    images = torch.stack([classifier.transform(val[i][0]) for i in range(len(val))]).double()
    labels = torch.tensor([val[i][1] for i in range(len(val))])
    result = accuracy_of(classifier.model, [(images[:7], labels[:7]), (images[7:], labels[7:])], CPU.device)
    assert isinstance(result, Evaluation)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.top1 == pytest.approx(100 * np.mean(hits))
    assert (result.top5, result.images, sum(result.confusion.values())) == (None, 10, 10)
    right = sum(images for (label, guess), images in result.confusion.items() if label == guess)
    assert (right, len(result.mistakes)) == (sum(hits), 10 - sum(hits))


def test_predict(finished: Path, digit_folder: Path, igcv_command: Igcv) -> None:
    image = next((digit_folder / "val" / "zero").iterdir())
    status, out, _ = igcv_command("predict", finished, image, "--json")
    answer = json.loads(out)
    assert status == 0
    assert answer["predictions"][0]["class"] == "zero"
    assert sum(p["probability"] for p in answer["predictions"]) == pytest.approx(1, abs=1e-4)
    assert "zero" in igcv_command("predict", finished, image).out


def test_resumed_is_uninterrupted(digit_folder: Path, tmp_path: Path) -> None:
    """A run of one epoch, resumed for another, is bitwise identical to a run of two, with all features on."""
    run(digit_folder, tmp_path / "whole", "epochs=2", *EVERYTHING)
    run(digit_folder, tmp_path / "parts", "epochs=1", *EVERYTHING)
    run(digit_folder, tmp_path / "parts", "epochs=2", *EVERYTHING, resume=True)
    for name in ("last.safetensors", "state.safetensors"):
        whole, _ = read_tensors(tmp_path / "whole" / name)
        parts, _ = read_tensors(tmp_path / "parts" / name)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert [row["epoch"] for row in read_metrics(tmp_path / "parts")] == [1, 2]


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer=adamw", "lr=0.01", "schedule=step", "lr_step_epochs=1"],
        ["decay_rule=mxnet", "nesterov=false", "schedule=exponential", "lr_factor=0.5"],
    ],
)
def test_resumed_optimizers_go_on(settings: list[str], digit_folder: Path, tmp_path: Path) -> None:
    run(digit_folder, tmp_path / "whole", "epochs=2", *settings)
    run(digit_folder, tmp_path / "parts", "epochs=1", *settings)
    run(digit_folder, tmp_path / "parts", "epochs=2", *settings, resume=True)
    whole, _ = read_tensors(tmp_path / "whole" / "state.safetensors")
    parts, _ = read_tensors(tmp_path / "parts" / "state.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_what_a_resumed_run_cannot_change(finished: Path, igcv_command: Igcv) -> None:
    before = (finished / "recipe.toml").read_text()
    for setting, message in (
        ("optimizer=adamw", "optimizer: got adamw, expected sgd as in the run"),
        ("model=igcv3_w_035", "model: got igcv3_w_035, expected igcv3_w_025"),
        ("ema_decay=0", "ema_decay: got 0.0, expected 0.8"),
        ("seed=1", "seed: got 1, expected 0 as in the run"),
        ("epochs=19", "is complete (20 epochs). To train longer, give a larger epochs=N"),
    ):
        outcome = igcv_command("train", "--resume", "--out", finished, setting)
        assert outcome.status == 2
        assert message in outcome.err
    assert (finished / "recipe.toml").read_text() == before


def test_a_run_that_cannot_be_evaluated_loses_nothing(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken validation image stops the run; once it is fixed, --resume evaluates and ends with the same result."""
    data = copy_of(digit_folder, tmp_path)
    run(data, tmp_path / "whole", "epochs=1")
    broken = next((data / "val" / "one").iterdir())
    content = broken.read_bytes()
    broken.write_bytes(b"")
    with pytest.raises(
        igcv.InputError, match=r"not a readable image .* Replace or remove it. Then use --resume"
    ):
        run(data, tmp_path / "out", "epochs=1")
    broken.write_bytes(content)
    monkeypatch.setattr("igcv.training.loop._forward_backward", None)  # training is finished
    run(data, tmp_path / "out", "epochs=1", resume=True)
    for name in ("last.safetensors", "state.safetensors"):
        whole, _ = read_tensors(tmp_path / "whole" / name)
        parts, _ = read_tensors(tmp_path / "out" / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert [row["train_loss"] for row in read_metrics(tmp_path / "out")] == [
        row["train_loss"] for row in read_metrics(tmp_path / "whole")
    ]


@pytest.mark.parametrize("name", ["last.safetensors", "metrics.jsonl", "report.html"])
def test_no_space_left(name: str, digit_folder: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full to play a full disk")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{name}.tmp").symlink_to("/dev/full")
    with pytest.raises(
        igcv.InputError, match=rf"cannot write .*{name}.*: No space left on device[;.] [fF]ree"
    ):
        run(digit_folder, tmp_path / "out", "epochs=1")


def test_odd_batches_are_mixed_in_pairs(digit_folder: Path, tmp_path: Path) -> None:
    run(digit_folder, tmp_path / "out", "epochs=1", "batch_size=7", "cutmix=1")
    with pytest.raises(igcv.InputError, match="mixup and cutmix need at least two images"):
        run(digit_folder, tmp_path / "none", "epochs=1", "batch_size=1", "mixup=1")


def test_more_parts_than_batches(digit_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(igcv.InputError, match="gives 1 batch, expected at least accumulation = 2"):
        run(digit_folder, tmp_path / "out", "epochs=1", "batch_size=48", "accumulation=2")


def test_without_validation_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (90, 80, 10)).save(tmp_path / "data" / name / "0.png")
    summary = run(tmp_path / "data", tmp_path / "out", "epochs=1", "batch_size=2")
    assert summary["best_top1"] is None
    assert (tmp_path / "out" / "best.safetensors").is_file()


def test_other_data_is_evaluated_whole(finished: Path, digit_folder: Path, igcv_command: Igcv) -> None:
    outcome = igcv_command("evaluate", finished, "--data", f"folder:{digit_folder / 'train'}", "--json")
    assert json.loads(outcome.out)["images"] == 24


def test_seeds_decide(digit_folder: Path, tmp_path: Path) -> None:
    losses = [
        run(digit_folder, tmp_path / str(i), "epochs=1", f"seed={seed}")["last"]["loss"]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_one_step_against_hand_written_sgd(accumulation: int) -> None:
    """Nesterov momentum, weight decay and clipping: two steps on a linear layer, with and without micro-batches."""
    torch.manual_seed(0)
    recipe = load_recipe(
        None,
        [
            "schedule=constant",
            "lr=0.1",
            "weight_decay=0.01",
            "clip_grad_norm=0.5",
            f"accumulation={accumulation}",
        ],
    )
    layer = torch.nn.Linear(4, 3).double()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    x, y = torch.randn(2, 6, 4, dtype=torch.float64), torch.randint(0, 3, (2, 6))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    trainer = Trainer(
        dataclasses.replace(recipe, channels_last=False),
        *(layer, layer, make_optimizer(layer, recipe), scaler, None, None, CPU),
    )
    parts = [
        part
        for i in range(2)
        for part in zip(x[i].chunk(accumulation), y[i].chunk(accumulation), strict=True)
    ]
    train_epoch(trainer, parts, 0, Silent())

    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for i in range(2):
        error = (x[i] @ weight.T + bias).softmax(1) - torch.eye(3, dtype=torch.float64)[y[i]]
        gradients = [error.T @ x[i] / 6, error.mean(0)]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        gradients = [g * min(1.0, 0.5 / (norm.item() + 1e-6)) for g in gradients]
        gradients[0] = gradients[0] + 0.01 * weight
        momenta = [0.9 * m + g for m, g in zip(momenta, gradients, strict=True)]
        weight, bias = (
            p - 0.1 * (g + 0.9 * m) for p, g, m in zip((weight, bias), gradients, momenta, strict=True)
        )
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias)


def test_finetune_with_other_classes(finished: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    for name in ("a", "b", "c"):
        for i in range(4):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (60 * i, 80, 10)).save(tmp_path / "data" / name / f"{i}.png")
    out = tmp_path / "tuned"
    outcome = igcv_command(
        *(
            "train",
            *SMALL,
            "epochs=1",
            "lr=0",
            f"data={tmp_path / 'data'}",
            "--init-from",
            finished,
            "--out",
            out,
        )
    )
    assert outcome.status == 0, outcome.err
    assert "Next:  igcv evaluate" in outcome.out
    before, _ = load_weights(finished / "best.safetensors")
    after, card = load_weights(out / "last.safetensors")
    assert card.class_names == ("a", "b", "c")
    assert torch.equal(before["head.conv.weight"], after["head.conv.weight"])
    assert after["classifier.weight"].shape[0] == 3


def test_bad_training_images_are_skipped_and_counted(digit_folder: Path, tmp_path: Path) -> None:
    data = copy_of(digit_folder, tmp_path)
    (data / "train" / "one" / "0.png").write_bytes(b"not an image")
    run(data, tmp_path / "out", "epochs=1")
    assert read_metrics(tmp_path / "out")[0]["bad_images"] == 1


def test_bad_validation_images_are_refused(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    data = copy_of(digit_folder, tmp_path)
    next((data / "val" / "one").iterdir()).write_bytes(b"")
    outcome = igcv_command("train", *SMALL, "epochs=1", f"data={data}", "--out", tmp_path / "out")
    assert outcome.status == 2
    assert "not a readable image" in outcome.err


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "data"))


def test_a_run_is_never_overwritten(finished: Path, digit_folder: Path, igcv_command: Igcv) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    outcome = igcv_command("train", *SMALL, f"data={digit_folder}", "--out", finished)
    assert outcome.status == 2
    assert "already holds a run. Add --resume" in outcome.err
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train"], "no data set given. Add --data"),
        (["train", "--data", "digit"], "unknown data .*'digit'; did you mean 'digits'"),
        (["train", "--data", "digits", "--model", "igcv3_d_10"], "unknown model 'igcv3_d_10'; did you mean"),
        (["train", "epoch=3", "--data", "digits"], "unknown recipe key 'epoch'; did you mean 'epochs'"),
        (["train", "--data", "folder:/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "--data", "digits", "batch_size=10", "accumulation=3"], "expected a multiple of 3"),
        (["train", "--data", "digits", "precision=fp16", "--device", "cpu"], "fp16 needs a GPU"),
        (["train", "--data", "digits", "input_size=2"], "input_size: got 2, expected at least 4"),
        (["train", "--data", "digits", "model=igcv3_g0g2_100"], "groups: got 0 and 2, expected two integers"),
        (["train", "--data", "digits", "--device", "gpu"], "device: got 'gpu'"),
        (["train", "--data", "digits", "--resume"], "--resume needs --out"),
        (["train", "--data", "digits", "--resume", "--out", "/nowhere"], "no run to resume in '/nowhere'"),
        (["train", "--data", "digits", "--gpus", "a"], "--gpus: got 'a', expected different GPU numbers"),
        (["train", "--data", "digits", "--out", "/proc/none"], "cannot write to '/proc': "),
        (["evaluate", "/nowhere"], "file not found: '/nowhere'"),
        (["predict", "README.md", "x.png"], "'README.md' is not a readable safetensors file"),
        (["models", "resnet*"], "unknown model pattern 'resnet.'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    outcome = igcv_command(*arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("igcv: ")
    assert outcome.err.count("\n") == 1
    assert re.search(message, outcome.err), outcome.err


def test_weights_that_do_not_fit(
    finished: Path, digit_folder: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    broken = tmp_path / "cut.safetensors"
    broken.write_bytes((finished / "best.safetensors").read_bytes()[:-100])
    assert "It may be truncated" in igcv_command("evaluate", broken).err
    outcome = igcv_command("evaluate", finished, "--data", "digits")
    assert (
        "different classes (only in the data: 0, 1, 2, 3, 4 and 5 more; only in the network: one, zero)"
        in outcome.err
    )
    other = [
        "train",
        *SMALL,
        f"data={digit_folder}",
        "model=igcv3_w_035",
        "--init-from",
        finished,
        "--out",
        tmp_path / "o",
    ]
    assert "the weights do not fit the network" in igcv_command(*other).err


def test_numbers_that_are_not_finite_stop_the_run(digit_folder: Path, tmp_path: Path) -> None:
    """The error names step, learning rate, layer and images; the last finite state stays."""
    run(digit_folder, tmp_path / "out", "epochs=1")
    before = (tmp_path / "out" / "state.safetensors").read_bytes()
    with pytest.raises(
        igcv.InputError,
        match=r"non-finite loss \((nan|inf)\) at epoch 2, step [23], learning rate 1e\+30; first non-finite values: "
        r"(weights|output of) \S+. Lower lr, .* --resume. Images of the batch: \S+\.png, \S+",
    ):
        run(digit_folder, tmp_path / "out", "epochs=4", "lr=1e30", "schedule=constant", resume=True)
    assert (tmp_path / "out" / "state.safetensors").read_bytes() == before
    run(digit_folder, tmp_path / "out", "epochs=2", resume=True)


def test_the_first_layer_with_numbers_that_are_not_finite() -> None:
    network = igcv.create_model("igcv3_w_010", 2, input_size=16)
    images = torch.randn(4, 3, 16, 16)
    assert first_nonfinite(network, images) == "loss"
    network.stages[2][0].expand.norm.bias.data.fill_(3e38)  # twice this value overflows float32
    network.stages[2][0].expand.norm.weight.data.fill_(3e38)
    assert first_nonfinite(network, images) == "output of stages.2.0.expand.norm"
    images[1, 0, 5, 5] = float("inf")
    assert first_nonfinite(network, images) == "images"
    network.stages[3][1].depthwise.conv.weight.data[0] = float("nan")
    assert first_nonfinite(network, images[:1]) == "weights stages.3.1.depthwise.conv.weight"


def test_steps_that_overflow_half_precision_are_left_out_up_to_a_limit() -> None:
    """A loss scale that is too high skips steps and decreases until steps are taken."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    recipe = load_recipe(None, ["schedule=constant", "lr=0.1", "max_left_out=2"])
    before = layer.weight.detach().clone()
    batch = (torch.full((2, 4), 1e3), torch.tensor([0, 1]))

    def trainer(scale: float) -> Trainer:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return Trainer(recipe, layer, layer, make_optimizer(layer, recipe), scaler, None, None, CPU)

    with pytest.raises(
        igcv.InputError, match="3 consecutive steps overflowed half precision, up to epoch 1, step 3"
    ):
        train_epoch(trainer(1e38), [batch] * 9, 0, Silent())
    assert torch.equal(layer.weight, before)
    mended = trainer(2.0**121)
    done = train_epoch(mended, [batch] * 3, 0, Silent())
    assert mended.scaler.get_scale() < 2.0**121
    assert (done.left_out, done.steps) == (0, 3)
    assert not torch.equal(layer.weight, before)


def test_a_state_with_numbers_that_are_not_finite_is_not_saved(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch makes weights non-finite, without an evaluation; the previous state is kept."""
    monkeypatch.setattr("igcv.training.epochs._evaluate", lambda parts, trainer: None)
    run(digit_folder, tmp_path / "out", "epochs=1", "batch_size=24", "resident=off")
    before = (tmp_path / "out" / "state.safetensors").read_bytes()
    with pytest.raises(igcv.InputError, match=r"non-finite values in .* after epoch 2"):
        run(
            digit_folder,
            tmp_path / "out",
            "epochs=2",
            "batch_size=24",
            "lr=3e38",
            "schedule=constant",
            resume=True,
        )
    assert (tmp_path / "out" / "state.safetensors").read_bytes() == before


def in_two_processes(data: Path, out: Path, *settings: str) -> tuple[list[int], str]:
    """Train one epoch in two CPU processes, started as by torchrun; return exit statuses and output."""
    arguments = ["train", *SMALL, "epochs=1", *settings, f"data={data}", "--out", str(out), "--device", "cpu"]
    log = out.with_suffix(".log")
    return ended(arguments, 2, log), log.read_text()


def test_two_processes(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    """Both train, one writes, every validation image counts once, and the log matches the saved weights."""
    settings = ("accumulation=2", "ema_decay=0.5", "precision=float32")
    codes, said = in_two_processes(digit_folder, tmp_path / "out", *settings)
    assert codes == [0, 0], said
    assert "2 processes" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["last"]["images"] == 10
    assert summary["machine"]["processes"] == 2
    logged = read_metrics(tmp_path / "out")[-1]["val_loss"]
    figures = json.loads(igcv_command("evaluate", tmp_path / "out" / "last.safetensors", "--json").out)
    assert figures["loss"] == pytest.approx(logged, abs=2e-5)


def test_two_processes_stop_together(digit_folder: Path, tmp_path: Path) -> None:
    """An unreadable validation image of the second process ends both processes with one message."""
    data = copy_of(digit_folder, tmp_path)
    sorted((data / "val" / "one").iterdir())[1].write_bytes(b"")
    codes, said = in_two_processes(data, tmp_path / "out")
    assert codes == [2, 2]
    assert said.count("igcv: ") == 1
    assert "not a readable image" in said
    assert "Connection closed" not in said


def test_the_originals_command_line(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from train_imagenet import translate

    (tmp_path / "imagenet_train.rec").touch()
    (tmp_path / "imagenet_val.rec").touch()
    arguments = f"--network=IGCV3 --multiplier=1.0 --gpus=0,1 --batch-size=96 --data-dir={tmp_path}".split()
    command = translate(arguments)
    assert command[0] == "train"
    assert command[1].endswith("recipes/imagenet_mxnet.toml")
    assert f"--data=rec:{tmp_path}/imagenet_train.rec,{tmp_path}/imagenet_val.rec" in command
    assert {"--model=igcv3_d", "--gpus=0,1", "batch_size=96", "multiplier=1.0"} < set(command)


def test_the_originals_command_line_explains_itself() -> None:
    script = Path(__file__).parents[1] / "train_imagenet.py"
    done = subprocess.run([sys.executable, script, "--network=IGCV4"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown network 'IGCV4' (one of: igcv3, igcv3_g2g4, igcv3_wider, mobilenetv2)" in done.stderr


def test_catalog_listing(igcv_command: Igcv) -> None:
    outcome = igcv_command("models", "igcv3_d_1*", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert rows[0]["name"] == "igcv3_d_100"
    assert rows[0]["parameters"] == 3_491_688
    assert rows[0]["multiply_adds"] == pytest.approx(313e6, rel=1e-3)


def test_convert_both_ways(finished: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    there, back = tmp_path / "net-0000.params", tmp_path / "net.safetensors"
    assert igcv_command("convert", finished, there).status == 0
    outcome = igcv_command("convert", there, back, "--input-size", 16)
    assert outcome.status == 0, outcome.err
    assert "igcv3_w_025, 2 classes" in outcome.out
    before, _ = load_weights(finished / "best.safetensors")
    after, card = load_weights(back)
    assert all(torch.equal(after[k], before[k]) for k in before if not k.endswith("num_batches_tracked"))
    assert (card.input_size, card.source["format"]) == (16, "mxnet")
    assert "already exists" in igcv_command("convert", finished, there).err
    whole = there.read_bytes()
    there.write_bytes(b"something else")
    assert igcv_command("convert", finished, there, "--force").status == 0
    assert there.read_bytes() == whole
    assert "cannot convert" in igcv_command("convert", there, tmp_path / "x.pt").err


def test_summary_of_a_network(tmp_path: Path, igcv_command: Igcv) -> None:
    outcome = igcv_command("summary", "igcv1_l8m4_d20_ident", "--plot", tmp_path / "block.svg")
    assert outcome.status == 0
    assert "stages.1.0.conv1: complementary condition not met, 2 paths for each pair" in outcome.out
    assert (tmp_path / "block.svg").read_text().startswith("<?xml")
    assert (
        "unknown block 'stages.9'"
        in igcv_command("summary", "igcv3_d_025", "--plot", tmp_path / "x.svg", "--block", "stages.9").err
    )
    rows = [json.loads(line) for line in igcv_command("summary", "igcv3_d_100", "--json").out.splitlines()]
    assert sum(row["parameters"] for row in rows) == 3_491_688


def test_a_resumed_run_keeps_the_forms_it_measured(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["model=igcv3_w_010", "form=measure", "ema_decay=0.5"]
    run(digit_folder, tmp_path / "run", *settings, "epochs=1")
    state = json.loads(read_tensors(tmp_path / "run" / "state.safetensors")[1]["state"])
    monkeypatch.setattr("igcv.training.choose_forms.measured_forms", None)  # a call now fails
    run(digit_folder, tmp_path / "run", *settings, "epochs=2", resume=True)
    resumed = json.loads(read_tensors(tmp_path / "run" / "state.safetensors")[1]["state"])
    assert len(state["scalars"]["forms"]) == 17  # blocks of IGCV3-W
    assert resumed["scalars"]["forms"] == state["scalars"]["forms"]


def test_the_commit_of_a_checkout(digits_run: Path) -> None:
    """The summary contains the commit of the code if the code is a git checkout."""
    summary = json.loads((digits_run / "summary.json").read_text())
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("this is no checkout")
    commit = summary["machine"]["commit"].removesuffix("+")
    subprocess.run(["git", "-C", root, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)
