"""Launch of one process per GPU with torchrun, for `--gpus 0,1`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.terminal import counted
from igcv.training.checkpoint import SIGNALS
from igcv.training.draft import Draft
from igcv.training.job import resolve
from igcv.training.kept import kept_by
from igcv.training.recipe import Recipe
from igcv.training.run import Run

# torchrun, as in `python -m torch.distributed.run`, but without a traceback when a signal ends it.
TORCHRUN = """
import os, signal, sys
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.run import main
try:
    main()
except SignalException as end:
    sys.exit(128 + end.sigval)
"""


def gpu_list(gpus: str) -> list[str]:
    """Return the devices of --gpus as entries for CUDA_VISIBLE_DEVICES.

    Raises:
        InputError: `gpus` is not a list of GPU numbers, or a GPU does not exist.
    """
    numbers, count = [number.strip() for number in gpus.split(",")], torch.cuda.device_count()
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError(f"--gpus: got '{gpus}', expected different GPU numbers, e.g. --gpus 0,1,2,3")
    if max(map(int, numbers)) >= count:
        if not count:
            raise InputError(f"--gpus: got '{gpus}', but igcv found no GPU. Omit --gpus to use the CPU")
        raise InputError(
            f"--gpus: got '{gpus}', expected numbers from 0 to {count - 1}: this machine has {counted(count, 'GPU')}. "
            "Give --gpus with such numbers"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return [visible[int(number)] for number in numbers]


def check_before_launch(recipe: Recipe | Draft, folder: Path, resume: bool, gpus: list[str]) -> None:
    """Raise errors in the input here, once, rather than in every process."""
    resolve(recipe, Process(torch.device("cuda"), 0, len(gpus)), kept_by(folder) if resume else None)
    Run(folder, resume)


def launch(gpus: list[str], arguments: list[str]) -> int:
    """Run `igcv` with `arguments` under torchrun, with one process per GPU in `gpus`.

    All processes ignore the signals that this process ignores, e.g. the end of the terminal under nohup.

    Returns:
        The exit status; if a signal ended the run, 128 plus the signal number instead of torchrun's 1.
    """
    caught: list[int] = []
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    runner = [sys.executable, "-c", TORCHRUN, "--standalone", f"--nproc-per-node={len(gpus)}"]
    command = [*runner, "-m", "igcv", *arguments]
    defaults = {
        "OMP_NUM_THREADS": "1",  # torchrun's default; setting it avoids torchrun's warning
        "PET_SIGNALS_TO_HANDLE": ",".join(number.name for number in [*heard, signal.SIGQUIT]),
    }
    environment = {**defaults, **os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    with subprocess.Popen(command, env=environment) as runner_process:

        def pass_on(number: int, frame: object) -> None:
            caught.append(number)
            if number != signal.SIGINT:  # a terminal sends Ctrl-C to all processes
                runner_process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in heard}
        try:
            status = runner_process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 128 + caught[0] if status and caught else status


def without_option(arguments: list[str], option: str) -> list[str]:
    """Return `arguments` without `option` and its value, in both spellings (--gpus 0,1 and --gpus=0,1)."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith(f"{option}="):
            skip = False
        elif argument == option:
            skip = True
        else:
            kept.append(argument)
    return kept
