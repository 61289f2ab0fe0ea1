"""Exported files on ARM's kernels: sessions in the emulator, and comparisons of their logits."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from igcv.deploy.compare import compare
from igcv.deploy.write import write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import open_session
from igcv.engines.session import Inference
from igcv.engines.table import ENGINES
from igcv.errors import InputError
from studies.arm.plan import FLOAT16, FLOAT32, INT8, Case
from studies.arm.subjects import Prepared

SCRIPT = Path(__file__).parent / "emulated.py"
TIMEOUT_S = 600  # per file


class EmulatedSession:
    """Session of an exported file in the emulator, for `igcv.deploy.compare.compare`.

    Args:
        file: the exported file.
        root: the folder that root.sh prepared.
        float16: whether ncnn computes in float16.

    Attributes:
        about: package of the engine with its version, and processor architecture.
        logits: logits of the last inference.
        instructions: executed instructions per image of the last inference.
    """

    card = ""

    def __init__(self, file: Path, root: Path, float16: bool = False) -> None:
        self.file, self.python = file, root / "python"
        self.options = ["--float16"] if float16 else []
        self.about: dict[str, str] = {}
        self.logits = np.empty(0)
        self.instructions: list[int] = []

    def bind(self, images: np.ndarray) -> Inference:
        return lambda: self._run(images)

    def _run(self, images: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as name:
            given, found, counts = (Path(name) / part for part in ("images.npy", "logits.npy", "counts.txt"))
            np.save(given, images)
            done = subprocess.run(
                [self.python, SCRIPT, self.file, given, found, *self.options],
                env=os.environ | {"COUNT": str(counts)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            if done.returncode:
                raise InputError(
                    f"'{self.file.name}' failed in the emulator (status {done.returncode}): {done.stderr[-500:]}"
                )
            self.about = json.loads(done.stdout)
            marks = [int(line) for line in counts.read_text().split()]
            self.instructions = [
                after - before for before, after in zip(marks[::2], marks[1::2], strict=True)
            ]
            self.logits = np.load(found)
            return self.logits


def outcome(case: Case, ready: Prepared, root: Path, folder: Path) -> dict[str, Any]:
    """Export a network, run the file in the emulator, and return the row for the results.

    The row compares the logits on ARM with PyTorch (`error`, `limit`, `agreement`; see
    `igcv.deploy.compare.Comparison`) and with the same file on x86 (`to_x86`, relative to the largest logit).
    """
    file = folder / f"network{ENGINES[case.engine].suffix}"
    float16, int8 = case.precision == FLOAT16, case.precision == INT8
    settings = ExportSettings(format=case.engine, form=case.form, threads=1, float16=float16, int8=int8)
    write_compared(ready.classifier, file, settings, ready.pixels, ready.calibration if int8 else None)
    arm = EmulatedSession(file, root, float16)
    compared = compare(ready.classifier.model, arm, ready.inputs)
    x86 = open_session(file, threads=1).bind(ready.inputs)()
    return {
        **arm.about,
        "images": compared.images,
        "error": compared.error,
        "limit": compared.limit if case.precision == FLOAT32 else None,
        "agreement": compared.agreement,
        "to_x86": float(np.abs(arm.logits - x86).max() / np.abs(x86).max()),
        "instructions": round(
            median(arm.instructions[1:] or arm.instructions)
        ),  # the first image costs a little more
    }
