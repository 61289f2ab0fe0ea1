"""The HTML report of a run: contents from the run's files, and no external requests."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import igcv
from igcv.analysis import model_cost
from igcv.data.sources.open import open_source
from igcv.evaluation.mistakes import MOST, PICTURE, Worst, data_uri
from igcv.report.figures import MOST_CLASSES, hardest
from igcv.report.page import count, report_page
from igcv.report.run import RunReport, StageCost, duration, images_of
from igcv.training import read_metrics
from igcv.training.run_report import read_run, write_report
from tests.conftest import Igcv

ROW = {
    **{"epoch": 1, "train_loss": 2.5, "lr": 0.1, "images_per_s": 100.0, "train_time_s": 10.0},
    **{"data_wait_s": 1.0, "epoch_time_s": 12.0, "bad_images": 0},
}


class Text(HTMLParser):
    """The text of a page without scripts and styles, and the addresses that it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said, self.fetched, self.tags, self.quiet = "", [], [], False
        self.feed(page)
        self.said = " ".join(self.said.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.quiet = tag in ("script", "style")
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        self.quiet = False

    def handle_data(self, data: str) -> None:
        self.said += "" if self.quiet else data + " "


def example(**changed: object) -> RunReport:
    evaluation = {
        "epoch": 1,
        "classes": ["cat", "dog"],
        "confusion": [[0, 0, 7], [0, 1, 3], [1, 1, 9]],
        "mistakes": [
            {
                "image": "a.png",
                "label": 0,
                "guesses": [[1, 0.9], [0, 0.1]],
                "picture": "data:image/png;base64,",
            }
        ],
    }
    values = {
        "name": "runs/a",
        "recipe": {
            "model": "igcv3_d_025",
            "data": "folder:x",
            "input_size": "16",
            "epochs": "1",
            "lr": "0.2",
        },
        "defaults": {"model": "igcv3_d_100", "data": "", "input_size": "0", "epochs": "1", "lr": "0.1"},
        "history": [ROW | {"val_loss": 0.5, "val_top1": 80.0, "val_top5": 100.0}],
        "stages": [StageCost("stem", 100, 3000), StageCost("head", 300, 1000)],
        "evaluation": evaluation,
        "environment": {"torch": "2.15.0"},
    }
    return RunReport(**(values | changed))  # type: ignore[arg-type]


def test_a_run_says_what_its_files_say(digits_run: Path, igcv_command: Igcv, tmp_path: Path) -> None:
    outcome = igcv_command("report", digits_run, "--out", tmp_path / "page.html")
    assert outcome.status == 0 and "open it in a browser" in outcome.out
    page = Text((tmp_path / "page.html").read_text())
    best = max(row["val_top1"] for row in read_metrics(digits_run))
    assert f"{best:.2f} % top-1" in page.said
    assert f"{model_cost('igcv3_d_025', 10, 16).parameters:,}" in page.said
    assert "igcv3_d_025 on digits" in page.said
    assert torch.__version__ in page.said


def test_it_fetches_nothing(digits_run: Path) -> None:
    page = (digits_run / "report.html").read_text()
    assert all(target.startswith(("#", "data:")) for target in Text(page).fetched)
    assert "Plotly.newPlot" in page and len(page) > 4e6  # the library is inside


SCREENS = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]


@pytest.mark.parametrize("width, scheme", SCREENS)
def test_in_a_browser(width: int, scheme: str, digits_run: Path, chromium: Any) -> None:
    """Opened from disk, every figure is drawn in the page's colors, and nothing is wider than the screen."""
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda said: complaints.append(said.text))
    tab.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
    tab.goto((digits_run / "report.html").as_uri())
    tab.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2 * 8")
    assert not complaints
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].every(p => p.clientWidth <= innerWidth)"
    )
    ink = tab.evaluate("document.querySelector('.js-plotly-plot').layout.font.color")
    assert (int(ink[1:3], 16) > 128) == (scheme == "dark")
    tab.close()


def test_from_the_keyboard(digits_run: Path, chromium: Any) -> None:
    """The Tab key reaches links, lists and tables, and Enter opens lists."""
    tab = chromium.new_page()
    tab.goto((digits_run / "report.html").as_uri())
    reached = set()
    for _ in range(20):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.tagName"))
        if tab.evaluate(
            "document.activeElement.tagName === 'SUMMARY' && !document.activeElement.parentElement.open"
        ):
            tab.keyboard.press("Enter")
    assert reached >= {"A", "SUMMARY", "DIV"}
    assert tab.evaluate("document.querySelectorAll('details[open]').length") >= 3
    tab.close()


def test_mistakes_against_predict(digits_run: Path, tmp_path: Path) -> None:
    """The listed images match a classification of the single images."""
    evaluation = json.loads((digits_run / "evaluation.json").read_text())
    classifier = igcv.load(digits_run)
    val = open_source("digits", 0).val
    assert val is not None
    predicted = [classifier.predict([val[i][0]])[0] for i in range(len(val))]
    wrong = {val.name(i): guesses for i, guesses in enumerate(predicted) if guesses[0].label != val[i][1]}
    assert len(evaluation["mistakes"]) == min(len(wrong), MOST) > 3
    for mistake in evaluation["mistakes"]:
        guesses = wrong[mistake["image"]]
        assert [label for label, _ in mistake["guesses"]] == [guess.label for guess in guesses]
        assert mistake["guesses"][0][1] == pytest.approx(guesses[0].probability, abs=1e-4)
    losses = [mistake["loss"] for mistake in evaluation["mistakes"]]
    assert losses == sorted(losses, reverse=True)
    counted = {(label, guess): n for label, guess, n in evaluation["confusion"]}
    labels = [val[i][1] for i in range(len(val))]
    by_hand = np.zeros((10, 10), int)
    np.add.at(by_hand, (labels, [guesses[0].label for guesses in predicted]), 1)
    assert counted == {(i, j): by_hand[i, j] for i in range(10) for j in range(10) if by_hand[i, j]}


def test_worst_over_many_batches() -> None:
    """The highest losses of misclassified images match a sort over all losses."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 7, generator=generator)
    labels = torch.randint(7, (200,), generator=generator)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    images = torch.arange(200.0).view(200, 1, 1, 1).expand(200, 3, 4, 4)
    worst = Worst()
    for batch, part in enumerate(torch.arange(200).split(33)):
        worst.add(batch, images[part], labels[part], logits[part], losses[part])
    found = worst.mistakes(lambda batch: [str(33 * batch + row) for row in range(33)])
    wrong = losses.where(logits.argmax(1) != labels, 0)
    assert [int(m.name) for m in found] == wrong.argsort(descending=True)[:MOST].tolist()
    assert all(m.image[0, 0, 0] == int(m.name) for m in found)


def test_pictures_are_small() -> None:
    assert data_uri(Image.new("RGB", (32, 32), "red")).startswith("data:image/png;base64,")
    large = data_uri(Image.effect_noise((1000, 500), 50).convert("RGB"))
    assert large.startswith("data:image/jpeg;base64,") and len(large) < PICTURE**2


def test_several_runs_are_compared() -> None:
    other = example(name="runs/b", recipe=example().recipe | {"lr": "0.3"}, environment={})
    page = Text(report_page([example(), other]))
    assert (
        "Different settings setting runs/a runs/b lr 0.2 0.3 runs/a" in page.said
    )  # no other setting differs
    assert "The run has not finished" in page.said


def test_without_validation_images() -> None:
    page = Text(report_page([example(history=[ROW], evaluation=None)]))
    assert "no validation images" in page.said
    assert "Confusion matrix" not in page.said


def test_what_a_stranger_writes_stays_text() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    evaluation = dict(example().evaluation or {}) | {"classes": [evil, "dog"]}
    plain, page = (report_page([run]) for run in (example(), example(name=evil, evaluation=evaluation)))
    assert "<script>alert" not in page and "<img src=x" not in page
    assert Text(page).tags == Text(plain).tags


def test_thousand_classes() -> None:
    confusion = [[i, i, 40] for i in range(1000)] + [[i, i + 1, 10 + i % 7] for i in range(900, 940)]
    counts = {(label, guess): images for label, guess, images in confusion}
    shown = hardest(counts, 1000)
    assert len(shown) == MOST_CLASSES and set(shown) <= set(range(900, 941))
    assert images_of(counts)[900] == 40 + 10 + 900 % 7
    evaluation = dict(example().evaluation or {}) | {
        "classes": [f"class {i}" for i in range(1000)],
        "confusion": confusion,
    }
    page = report_page([example(evaluation=evaluation)])
    assert "The 40 of 1000 classes with the most errors." in Text(page).said


@pytest.mark.parametrize(
    "seconds, text", [(0.5, "0.5 s"), (48.2, "48 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "number, text", [(950, "950"), (12_345, "12.3 k"), (3_491_688, "3.49 M"), (1.2e9, "1.2 G")]
)
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


def test_no_run(tmp_path: Path, igcv_command: Igcv) -> None:
    outcome = igcv_command("report", tmp_path)
    assert outcome.status == 2
    assert (
        f"'{tmp_path}' is not a run folder: recipe.toml is missing. Give a folder of igcv train"
        in outcome.err
    )


def test_no_epoch_yet(digits_run: Path, tmp_path: Path) -> None:
    shutil.copy(digits_run / "recipe.toml", tmp_path)
    with pytest.raises(igcv.InputError, match=r"no finished epoch yet\. Try again after the first epoch"):
        read_run(tmp_path)


DAMAGES = {
    "evaluation.json": ["{", "[]", "[" * 10**5, '{"classes": []}', None],
    "metrics.jsonl": ["[]", '{"epoch": 1}', '{"epoch": "x"}'],
    "summary.json": ["no json"],
}


@pytest.mark.parametrize("name, text", [(name, text) for name, texts in DAMAGES.items() for text in texts])
def test_damaged_files(name: str, text: str | None, digits_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    if text is None:  # a label without a class
        evaluation = json.loads((run / name).read_text())
        evaluation["mistakes"][0]["guesses"][0][0] = 99
        text = json.dumps(evaluation)
    (run / name).write_text(text)
    with pytest.raises(igcv.InputError, match=re.escape(str(run))):
        write_report([run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_an_unfinished_run(digits_run: Path, tmp_path: Path) -> None:
    """An unfinished run has no summary, and no evaluation without a best epoch."""
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    for name in ("summary.json", "evaluation.json", "report.html"):
        (run / name).unlink()
    write_report([run], run / "report.html")
    assert "The run has not finished" in Text((run / "report.html").read_text()).said
