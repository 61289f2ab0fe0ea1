"""Tests of the comparison table: its trainings, their resumption and the generated tables."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import igcv
from igcv.analysis import model_cost
from igcv.training import find_recipe, load_recipe, read_metrics
from igcv.weights import load_weights
from studies.soak.photos import write_digits
from studies.table import pages, plots, run
from studies.table.outcomes import Column, columns
from studies.table.plan import (
    ABLATION_RECIPE,
    NETWORKS,
    RECIPES,
    SEEDS,
    VARIANTS,
    DataSet,
    Training,
    ablation_trainings,
    data_set,
    table_trainings,
)
from studies.table.released import accuracy_of, release
from studies.table.run import Tally, run_all
from studies.table.speed import seconds_to, timed_run

ROOT = Path(__file__).parents[1]
TINY = ["input_size=16", "batch_size=8", "precision=float32", "warmup_epochs=0", "ema_decay=0.5", "seed=0"]


def test_every_network_has_about_its_published_parameters() -> None:
    """The paper's repository counts with 100 classes. Only IGCV2's count matches 10 classes."""
    for row in NETWORKS:
        classes = 10 if row.model.startswith("igcv2") else 100
        parameters = model_cost(row.model, classes, 32).parameters / 1e6
        if row.published_parameters:
            assert parameters == pytest.approx(row.published_parameters, rel=0.03), row.label


CIFAR10 = data_set("cifar10")


def test_every_variant_is_a_recipe() -> None:
    plain = load_recipe(find_recipe(ABLATION_RECIPE))
    for training in ablation_trainings(CIFAR10, "igcv3_d_100", 1):
        changed = load_recipe(find_recipe(ABLATION_RECIPE), training.changes)
        assert (changed == plain) == (training.changes == ("seed=0",))
        assert training.data.spec == "train:cifar10"
    names = [t.name for t in ablation_trainings(CIFAR10, "a", 3)]
    assert len(set(names)) == len(names) == 3 * len(VARIANTS)


def test_the_order_of_the_table() -> None:
    """Trainings follow `ORDER`, one seed after another. Slow networks come last."""
    models, data = [row.model for row in NETWORKS], [data_set(name) for name in RECIPES["cpu"]]
    names = [t.name for t in table_trainings(data, RECIPES["cpu"], models, 2)]
    assert names[:4] == [
        "cifar10/cifar_cpu/igcv3_d_p50-seed0",
        "cifar10/cifar_cpu/mobilenetv2_100-seed0",
        "tinyimagenet/tinyimagenet/igcv3_d_p50-seed0",
        "cifar10/cifar_cpu/igcv3_d_100-seed0",
    ]
    assert names[11:13] == ["cifar10/cifar_cpu/igcv3_d_p50-seed1", "cifar10/cifar_cpu/mobilenetv2_100-seed1"]
    assert all("igcv2" in name or "igcv1" in name for name in names[22:])
    assert len(set(names)) == len(names) == 2 * (2 * len(NETWORKS) + 1)
    assert all(find_recipe(recipe) for on in RECIPES.values() for recipe in on.values())


def test_a_data_set_of_ones_own() -> None:
    own = data_set("mine=folder:photos")
    assert own == DataSet("mine", "folder:photos", "mine")
    [training] = table_trainings([own], {"mine": "recipes/cifar_fast.toml"}, ["igcv3_d_p50"], 1, ["epochs=1"])
    assert training.name == "mine/cifar_fast/igcv3_d_p50-seed0"
    assert training.arguments == [
        *(
            "recipes/cifar_fast.toml",
            "epochs=1",
            "seed=0",
            "--data",
            "folder:photos",
            "--model",
            "igcv3_d_p50",
        )
    ]
    assert data_set("cifar10=cifar10:there") == DataSet("cifar10", "cifar10:there", "CIFAR-10")


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without time, an interrupted call and a complete call together give one complete training."""
    photos = DataSet("digits_two", str(write_digits(tmp_path / "photos", train=24)), "digits")

    def training(name: str, *changes: str) -> Training:
        return Training(f"two/short/{name}", photos, ABLATION_RECIPE, "igcv3_w_025", (*TINY, *changes))

    long, short = training("long", "epochs=400"), training("short", "epochs=2")
    broken, said = training("broken", "lr=-1"), list[str]()

    def piece(trainings: list[Training], seconds: float) -> Tally:
        return run_all(trainings, tmp_path / "runs", tmp_path / "results", 2, seconds, said.append)

    assert piece([short], 0) == (0, 0, 1)
    assert piece([short, broken], 300) == (1, 1, 0)
    assert re.search(r"broken failed: igcv: lr: got -1.*, expected at least 0", "\n".join(said))
    results = tmp_path / "results" / "two" / "short"
    summary = json.loads((results / "short" / "summary.json").read_text())
    assert f"two/short/short: {summary['last']['top1']:.2f} % after 2 epochs (1 of 2 done)" in said
    assert piece([short], 0) == (1, 0, 0)  # a complete training does not run again
    log = tmp_path / "runs" / long.name / "metrics.jsonl"
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: float(log.exists()), sleep=time.sleep))
    assert piece([long], 1) == (0, 0, 1)  # runs until the end of its first epoch
    monkeypatch.setattr(run, "time", time)
    assert 0 < (epochs := len(read_metrics(tmp_path / "runs" / long.name))) < 400
    assert piece([long._replace(changes=(*TINY, f"epochs={epochs + 1}"))], 300) == (1, 0, 0)
    assert len(read_metrics(results / "long")) == epochs + 1
    (results / "long" / "summary.json").unlink()  # as if killed before the summary was copied
    assert piece([long], 0) == (1, 0, 0)
    assert {path.name for path in (results / "short").iterdir()} == {
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
    }
    kept = "".join(path.read_text() for path in (results / "short").iterdir())
    assert str(tmp_path) not in kept and '"digits_two"' in kept  # no local path


def test_a_table_that_is_ended_saves_its_trainings(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "photos", train=24)
    settings = ["--data", f"mine=folder:{photos}", "--model", "igcv3_w_025", "--recipe", ABLATION_RECIPE]
    runs = ROOT / "runs" / "mine"
    command = [
        sys.executable,
        "-m",
        "studies.table",
        "train",
        *settings,
        *TINY,
        "epochs=4000",
        "save_minutes=100",
    ]
    try:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
            deadline = time.monotonic() + 120
            while not list(runs.glob("*/*/metrics.jsonl")) and time.monotonic() < deadline:
                time.sleep(0.1)
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 143
        [log] = runs.glob("*/*.log")
        assert "SIGTERM: saved after" in log.read_text()
    finally:
        shutil.rmtree(runs, ignore_errors=True)


def test_seconds_to_an_accuracy(tmp_path: Path) -> None:
    """Each epoch has its time since the start of the process. The first epoch with the target accuracy counts."""
    photos = write_digits(tmp_path / "photos", train=24)
    settings = [ABLATION_RECIPE, "--data", str(photos), *TINY, "--model", "igcv3_w_025", "epochs=3"]
    epochs = timed_run(settings, tmp_path / "runs" / "timed")
    logged = read_metrics(tmp_path / "runs" / "timed")
    assert [epoch["top1"] for epoch in epochs] == [row["val_top1"] for row in logged]
    times = [epoch["seconds"] for epoch in epochs]
    assert times == sorted(times) and times[-1] > sum(row["epoch_time_s"] for row in logged)
    best = max(epoch["top1"] for epoch in epochs)
    assert seconds_to(best, epochs) == next(epoch["seconds"] for epoch in epochs if epoch["top1"] == best)
    assert seconds_to(100.5, epochs) is None
    with pytest.raises(igcv.InputError, match=r"folder exists: .* Remove the folder to measure again"):
        timed_run(settings, tmp_path / "runs" / "timed")


def summary(top1: float) -> str:
    machine = {"device": "cpu", "torch": "2.15.0", "python": "3.11.7"}
    last = {"top1": top1, "images": 10_000}
    return json.dumps({"data": "cifar10", "epochs": 200, "last": last, "machine": machine})


@pytest.fixture
def found(tmp_path: Path) -> list[Column]:
    """Return results with three seeds of one network, one seed of another, and none of the remaining networks."""
    folder = tmp_path / "cifar10" / "cifar_table"
    for name, top1 in (
        *((f"igcv3_d_100-seed{seed}", top1) for seed, top1 in zip(SEEDS, (94.0, 95.0, 96.0), strict=True)),
        ("mobilenetv2_100-seed0", 94.5),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "summary.json").write_text(summary(top1))
    return columns(tmp_path)


def row_of(text: str, model: str) -> list[str]:
    """Return the cells of the row of a network, the first one in a text."""
    row = next(line for line in text.splitlines() if f"`{model}`" in line)
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_tables_say_what_was_found(found: list[Column]) -> None:
    measured, published = pages.tables(found).split("### Accuracy, published")
    assert measured.splitlines()[2] == "| network | `--model` | CIFAR-10, cifar_table, 200 epochs |"
    assert row_of(measured, "igcv3_d_100") == ["IGCV3-D 1.0x", "`igcv3_d_100`", "95.00 ± 1.00"]
    # binomial error of one seed: sqrt(0.945 * 0.055 / 10000)
    assert row_of(measured, "mobilenetv2_100")[-1] == "94.50 ± 0.23 (one seed)"
    assert "igcv3_d_half" not in measured  # not trained
    assert "(cpu, torch 2.15.0, Python 3.11.7)" in measured
    assert row_of(published, "igcv3_d_100") == [
        *("IGCV3-D 1.0x", "`igcv3_d_100`", "2.22 / 2.34 M", "2.4 M", "94.96 ± 0.07", "77.95 ± 0.39"),
        "95.01 / 78.24",
    ]
    assert row_of(published, "igcv3_d_half")[2:] == ["1.38 / 1.50 M", "", "", "", "94.75 / 77.65"]
    assert "95.00" not in published


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = tmp_path / "tinyimagenet" / "tinyimagenet" / "igcv3_d_p50-seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(summary(50.0))
    measured, published = pages.tables(columns(tmp_path)).split("### Accuracy, published")
    assert measured.splitlines()[2].endswith("| Tiny-ImageNet, tinyimagenet, 200 epochs |")
    assert row_of(measured, "igcv3_d_p50")[-1] == "50.00 ± 0.50 (one seed)"
    assert "MobileNetV2 48.26, EfficientNet 57.34, ResNet-50 66.21" in published


def test_nothing_measured() -> None:
    assert "igcv has not measured an accuracy yet." in pages.tables([])


def test_plot(found: list[Column], tmp_path: Path) -> None:
    plots.plot(found, {"igcv3_d_100": 4.0}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 1000


def test_ablation_table(tmp_path: Path) -> None:
    for training, top1 in zip(ablation_trainings(CIFAR10, "igcv3_d_100", 1), range(80, 99), strict=False):
        (tmp_path / training.name).mkdir(parents=True)
        (tmp_path / training.name / "summary.json").write_text(summary(top1))
    page = pages.results_page("", {"cifar10_ablation": tmp_path / "cifar10_ablation" / "cifar_table"}, None)
    assert "## cifar10_ablation, igcv3_d_100" in page
    assert "| rate halved | `lr=0.25` | 81.00 ± 0.39 (one seed) |" in page
    assert columns(tmp_path) == []


def test_the_readme_is_up_to_date() -> None:
    """The tables in README.md match the stored results."""
    readme, latencies = (
        (ROOT / "README.md").read_text(),
        json.loads((ROOT / "studies" / "results" / "latency.json").read_text()),
    )
    text = [pages.cost_table(latencies), pages.tables(columns(ROOT / "studies" / "results"))]
    assert pages.with_results(readme, "\n\n".join(text)) == readme


@pytest.mark.parametrize(
    "text, message",
    [
        ("rec:a,b", "--data: got 'rec:a,b', expected NAME or NAME=SPEC"),
        ("a/b=folder:x", "expected NAME or NAME=SPEC with letters, digits and _"),
        ("cifar11", "--data: got 'cifar11', expected one of cifar10, cifar100, tinyimagenet, or NAME=SPEC"),
    ],
)
def test_wrong_data_sets(text: str, message: str) -> None:
    with pytest.raises(igcv.InputError, match=message):
        data_set(text)


def test_release(digits_run: Path, tmp_path: Path) -> None:
    file, card = release(digits_run, "digits", tmp_path / "released")
    assert file.name == "igcv3_d_025.digits.safetensors"
    last = accuracy_of(digits_run / "last.safetensors")
    assert card.results["top1"] >= last.top1 or card.results["stored"] == "float32"
    assert accuracy_of(file).top1 == card.results["top1"]
    if card.results["stored"] == "float16":
        assert file.stat().st_size < 0.65 * (digits_run / "last.safetensors").stat().st_size
    assert load_weights(file)[1] == card
    with pytest.raises(igcv.InputError, match=r"expected a complete run\. Resume the run first"):
        release(tmp_path, "digits", tmp_path / "released")
    with pytest.raises(
        igcv.InputError, match=r"file exists: .* Remove the file to release these weights again"
    ):
        release(digits_run, "digits", tmp_path / "released")
