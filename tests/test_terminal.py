"""Output with arbitrary names: brackets, emoji codes, control characters and undecodable bytes."""

import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from igcv.commands.printing import lines
from igcv.console import Outliving, PlainConsole
from igcv.terminal import counted, one_line, quoted
from tests.conftest import ONE_THREAD

BYTES = "caf\udce9"  # the undecodable byte 0xe9 in a Python string
ODD = ("[bold]x[/]", BYTES, ":smile:", "日本語", "a\x1b[31mb", "l1\nl2", "it's \\n", "$(x) *")


def test_text_on_one_line_without_what_a_terminal_obeys() -> None:
    assert one_line("[bold]x[/] 日本語") == "[bold]x[/] 日本語"
    assert one_line(f"{BYTES} a\x1b[31mb l1\nl2\t\u009b") == r"caf\xe9 a\x1b[31mb l1\nl2\t\x9b"
    assert one_line("日本語 é", "latin-1") == r"\u65e5\u672c\u8a9e é"


@pytest.mark.parametrize("name", ODD)
def test_a_quoted_word_can_be_pasted(name: str) -> None:
    word = quoted(name)
    assert one_line(word) == word
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert said == os.fsencode(name)


def test_a_console_prints_text_as_it_is() -> None:
    raw = BytesIO()
    console = PlainConsole(file=TextIOWrapper(raw, "latin-1"), width=200)
    table = Table("class [red]", box=None)
    for name in ODD:
        table.add_row(name)
        console.print(name)
    console.print(table)
    console.file.flush()
    printed = raw.getvalue().decode("latin-1").splitlines()
    assert printed[: len(ODD)] == [one_line(name, "latin-1") for name in ODD]
    assert [line.strip() for line in printed[len(ODD) :]] == ["class [red]", *printed[: len(ODD)]]


def test_rows_stay_whole_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lines, "console", PlainConsole(width=20))
    table = Table("network", "multiply-adds", box=None)
    table.add_row("a network of a long name", "1,234.5 M")
    lines.print_rows(table)
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "multiply-adds"]
    assert row.strip() == "a network of a long name  1,234.5 M"


def test_counts_in_words() -> None:
    assert [counted(1, "epoch"), counted(0, "image"), counted(2, "batch")] == [
        "1 epoch",
        "0 images",
        "2 batches",
    ]


def test_a_stream_outlives_its_reader(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        lasting = Outliving(stream)
        for _ in range(3):
            lasting.write("a line\n")
            lasting.flush()


def test_a_run_of_odd_names_from_its_start_to_what_it_prints_at_the_end(tmp_path: Path) -> None:
    """In a latin-1 terminal; the printed commands are run unchanged."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for name in ODD:
            folder = tmp_path / "data" / part / name.replace("/", "|")
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"[{i}] {BYTES}.png", format="PNG")
    environment = ONE_THREAD | {"PYTHONIOENCODING": "latin-1"}
    settings = [
        "model=igcv3_w_010",
        "input_size=16",
        "batch_size=16",
        "epochs=1",
        "workers=0",
        "precision=float32",
    ]
    out = f"r[/b] {BYTES}"
    command = [sys.executable, "-m", "igcv", "train", "data=folder:data", *settings, "--device", "cpu"]
    done = subprocess.run([*command, "--out", out], cwd=tmp_path, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    run = tmp_path / out
    assert (run / "report.html").is_file() and list((run / "tensorboard").glob("events.*"))
    following = done.stdout.decode("latin-1").partition("Next:")[2].splitlines()
    evaluate, predict, tensorboard = (line.strip() for line in following[:3])
    assert evaluate == r"igcv evaluate $'r[/b] caf\xe9'"
    assert predict == f"{evaluate} IMAGE...".replace("evaluate", "predict")
    assert tensorboard == r"tensorboard --logdir $'r[/b] caf\xe9/tensorboard'"
    typed = evaluate.replace("igcv", f"{sys.executable} -m igcv", 1)
    done = subprocess.run(["bash", "-c", typed], cwd=tmp_path, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("latin-1")
    assert all(one_line(name.replace("/", "|"), "latin-1") in shown for name in ODD)
