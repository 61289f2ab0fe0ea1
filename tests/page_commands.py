"""Runners for the commands on the pages, on tiny data and without GPUs, for tests/test_pages.py."""

import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from itertools import takewhile
from pathlib import Path
from unittest import mock

import typer
from torch.distributed.run import get_args_parser

from igcv.commands.app import app
from igcv.data.sources.spec import source_name
from igcv.training import find_recipe, load_recipe
from igcv.training.phases import folder_name
from tests.conftest import ONE_THREAD, Igcv
from train_imagenet import translate

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands
NETWORK = "model=igcv3_w_025"
SMALL = [
    "input_size=16",
    "workers=0",
    "epochs=1",
    "batch_size=8",
    "ema_decay=0.5",
    "lr=0.01",
    "warmup_epochs=0",
]
LONGER = ["epochs=3"]  # for a resumed run, which is complete
TIME_LIMIT_S = 240

# Takes the words after a command's name, and `igcv` in this process.
Try = Callable[[list[str], Igcv], object]


def run_shell(text: str, igcv: Igcv) -> None:
    """Run a script as a whole, other text line by line, each command by its kind."""
    if text.startswith("#!"):
        run_batch_script(text)
        return
    for words in lines(text):
        assert words[0] in KINDS, f"no runner for '{words[0]}': add one to KINDS in tests/page_commands.py"
        KINDS[words[0]](words[1:], igcv)


def lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, without comments and variables."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words:
            yield words


def run_igcv(words: list[str], igcv: Igcv) -> None:
    if "--serve" in words:
        return  # runs until Ctrl-C; tested in test_web.py
    make_room(words)
    outcome = igcv(*tiny(words))
    assert outcome.status == 0, f"igcv {shlex.join(words)}\n{outcome.err}"


def make_room(words: list[str]) -> None:
    """Remove the output of an earlier command that this command would write again."""
    written = words[2] if words[0] == "convert" else option(words, "--out")
    if words[0] == "train" and written is None:
        written = str(Path("runs") / folder_name(source_name(option(words, "--data") or "")))
    if written and "--resume" not in words:
        shutil.rmtree(written, ignore_errors=True)
        with suppress(OSError):
            Path(written).unlink()


def option(words: list[str], name: str) -> str | None:
    """Return the value of an option."""
    text = next((word for word in words if word.startswith(f"{name}=")), "")
    return text.partition("=")[2] or (words[words.index(name) + 1] if name in words else None)


def tiny(words: list[str]) -> list[str]:
    """Return a short version of a command: no GPUs, no graph file, no downloads, no measured choices."""
    job = " ".join(words[:2]) if words[0] == "bench" else words[0]
    words = [re.sub(r"^cifar\d+$", "folder:photos", word) for word in without(words, "--gpus", "--symbol")]
    if job in ("train", "bench data"):
        words = small(words)
    if job == "bench latency":
        words = [re.sub(r"^(igcv3_d|mobilenetv2)_\d+$", "mobilenetv2_025", word) for word in words]
    return [*words, *SHORTENED.get(job, [])]


def small(words: list[str]) -> list[str]:
    """Return a short training command: few images and, if it names a network or a recipe, a small network."""
    if "--resume" in words:
        return [*words, *LONGER]
    recipe = next((word for word in words if word.endswith(".toml")), None)
    named = recipe is not None or "--model" in words
    few = recipe and load_recipe(find_recipe(recipe)).data and option(words, "--data") is None
    words = [
        word
        for word in without(words, "--model")
        if not re.match("input_size=|(warmup_)?epochs=|workers=|progressive_|max_minutes=", word)
    ]
    return [*words, *SMALL, *([NETWORK] if named else []), *(["data=folder:photos"] if few else [])]


SHORTENED = {
    "export": ["--form", "dense"],
    "bench latency": ["--form", "dense", "--rounds", "1"],
    "bench data": ["--seconds", "0.1"],
}


def without(words: list[str], *options: str) -> list[str]:
    """Return the words without these options and their values."""
    pairs = zip(["", *words], words, strict=False)
    return [w for before, w in pairs if {before, w.partition("=")[0]}.isdisjoint(options)]


def run_torchrun(words: list[str], igcv: Igcv) -> None:
    """Run training on one node in two processes on the CPU, and any other command in this process.

    The options of the launcher are always parsed. For several nodes, the batch script is tested instead. Evaluation in
    several processes is tested in test_parallel.py.
    """
    at = words.index("igcv") + 1
    launch, command = words[:at], words[at:]
    if not get_args_parser().parse_args(launch).standalone or command[0] != "train":
        run_igcv(command, igcv)
        return
    launch = [re.sub(r"(--nproc-per-node)=\d+", r"\1=2", word) for word in launch]
    make_room(command)
    run_program([sys.executable, "-m", "torch.distributed.run", *launch, *tiny(command), "--device=cpu"])


def run_batch_script(text: str) -> None:
    """Run a Slurm script for two nodes on this machine, with stand-ins for the commands of Slurm."""
    stand_ins = {
        "scontrol": "echo 127.0.0.1",
        "srun": 'shift; "$@" & first=$!; "$@" & second=$!; wait $first && wait $second',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        ".venv/bin/activate": "",
    }
    for name, line in stand_ins.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"#!/bin/bash\n{line}\n")
        Path(name).chmod(0o755)
    slurm = {"NNODES": "2", "GPUS_ON_NODE": "1", "CPUS_PER_TASK": "1", "JOB_NODELIST": "localhost"}
    variables = {f"SLURM_{name}": value for name, value in slurm.items()} | {"SLURM_JOB_ID": str(os.getpid())}
    text, count = re.subn(
        r"(igcv train .*)", rf"\1 --device cpu {' '.join([*SMALL, NETWORK])} epochs=2", text
    )
    assert count == 1
    said = run_program(["bash", "-c", text], PATH=f"{Path.cwd()}:{os.environ['PATH']}", **variables)
    assert "2 processes" in said
    assert "resuming after epoch 1 of 2" in said


def run_program(words: list[str], **variables: str) -> str:
    """Return the output of a program; assert its success without warnings."""
    environment = ONE_THREAD | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    assert "UserWarning" not in done.stderr
    return done.stdout


def run_python(words: list[str], igcv: Igcv) -> None:
    """Run the command line of the original code; for slow scripts, only check that the options exist."""
    if words[0] == "train_imagenet.py":
        run_igcv(translate(words[1:]), igcv)
        return
    script, *given = [module_file(words[1]), *words[2:]] if words[0] == "-m" else words
    path, shown = ROOT / script, io.StringIO()
    inner = list(takewhile(lambda word: not word.startswith("-"), given))  # a command of the script
    with (
        mock.patch.object(sys, "argv", [script, *inner, "--help"]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
        redirect_stdout(shown),
        suppress(SystemExit),
    ):
        runpy.run_path(str(path), run_name="__main__")
    unknown = [word for word in given if word.startswith("--") and f"{word} " not in shown.getvalue()]
    assert not unknown, f"{script} has no {unknown}"


def module_file(name: str) -> str:
    """Return the file that `python -m NAME` runs."""
    path = name.replace(".", "/")
    return f"{path}.py" if (ROOT / f"{path}.py").is_file() else f"{path}/__main__.py"


def run_under(words: list[str], igcv: Igcv) -> None:
    """Run the command of `nohup COMMAND`; test_launcher.py tests a closed terminal."""
    KINDS[words[0]](words[1:], igcv)


def find_target(words: list[str], igcv: Igcv) -> None:
    """Check that the target of `make TARGET` exists."""
    run_program(["make", "--dry-run", "--directory", str(ROOT), *words])


def find_extra(words: list[str], igcv: Igcv) -> None:
    """Check that the extra of `pip install 'igcv[EXTRA]'` exists."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words in [["install", f"igcv[{extra}]"] for extra in extras]


def find_environment(words: list[str], igcv: Igcv) -> None:
    """Check that make creates the environment of `source .venv/bin/activate`."""
    assert words == [".venv/bin/activate"]
    assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text()


def find_events(words: list[str], igcv: Igcv) -> None:
    """Check that the folder of `tensorboard --logdir FOLDER` contains events."""
    assert list(Path(str(option(words, "--logdir"))).glob("events.*"))


KINDS: dict[str, Try] = {
    "igcv": run_igcv,
    "torchrun": run_torchrun,
    "nohup": run_under,
    "python": run_python,
    "make": find_target,
    "pip": find_extra,
    "source": find_environment,
    "tensorboard": find_events,
}
