"""From `--gpus 0,1` to torchrun: one process for each GPU."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from igcv.errors import InputError
from igcv.training.distributed import Process
from igcv.training.job import plan
from igcv.training.recipe import Recipe
from igcv.training.run import Run, has_state


def gpu_list(gpus: str) -> list[str]:
    """The devices that --gpus names, as CUDA_VISIBLE_DEVICES counts them."""
    numbers, count = [number.strip() for number in gpus.split(",")], torch.cuda.device_count()
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError(f"--gpus {gpus} is no list of GPU numbers; give e.g. --gpus 0,1,2,3")
    if max(map(int, numbers)) >= count:
        raise InputError(
            f"--gpus {gpus}: this machine has {count} GPUs, counted from 0; without --gpus the CPU serves"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return [visible[int(number)] for number in numbers]


def check_before_launch(recipe: Recipe, folder: Path, resume: bool, gpus: list[str]) -> None:
    """Find what is wrong with the input here, once, rather than in every process."""
    plan(recipe, Process(torch.device("cuda"), 0, len(gpus)))
    Run(folder, resume)


def launch(gpus: list[str], arguments: list[str]) -> int:
    """Run `igcv` with `arguments` under torchrun, one process for each of `gpus`; returns its exit status."""
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(gpus)}"]
    command = [*runner, "-m", "igcv", *arguments]
    # One thread each is torchrun's own default, about which it warns unless it is set.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    with subprocess.Popen(command, env=environment) as runner_process:
        # The run saves and ends. A terminal sends Ctrl-C to all by itself, so only a scheduler's signal is passed on.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: runner_process.send_signal(signal.SIGTERM))
        return runner_process.wait()


def was_restarted(folder: Path) -> bool:
    """Whether torchrun has started this command again, after a failure, and there is a run to go on with."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and has_state(folder)


def without_option(arguments: list[str], option: str) -> list[str]:
    """`arguments` without `option` and its value, in both spellings (--gpus 0,1 and --gpus=0,1)."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith(f"{option}="):
            skip = False
        elif argument == option:
            skip = True
        else:
            kept.append(argument)
    return kept
