"""ExecuTorch as an engine."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igcv.engines.session import Inference, check_images, in_batches
from igcv.errors import InputError
from igcv.extras import required
from igcv.silence import silent
from igcv.weights.card import CARD_KEY

FLOAT32 = 6  # number of the type in ExecuTorch


def imported(name: str) -> Any:
    """Import a module of the package executorch.

    Raises:
        InputError: the package is missing or incomplete; the message gives the install command.
    """
    required("executorch", "executorch", "executorch")
    try:
        with silent():
            return import_module(f"executorch.{name}")
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot import the package executorch ({reason[:200]}): pip install --upgrade 'igcv[executorch]'"
        ) from error


@dataclass
class ThreadPool:
    """The thread pool of ExecuTorch, which the whole process shares. PyTorch has threads of its own.

    A loaded method keeps a pointer to the pool. It crashes if it runs after the pool was replaced.

    Attributes:
        replaced: how often the pool was replaced.
    """

    replaced: int = 0

    def resize(self, runtime: Any, threads: int) -> int:
        """Give the pool a number of threads, and return `replaced`."""
        if runtime._threadpool_get_thread_count() != threads:
            runtime._unsafe_reset_threadpool(threads)
            self.replaced += 1
        return self.replaced


POOL = ThreadPool()


class ExecuTorchSession:
    """Session of ExecuTorch on the CPU, with the XNNPACK delegate.

    The file takes a fixed number of float32 images, (N, 3, S, S). A constant method of the file returns the card.
    """

    package, suffix, extra = "executorch", ".pte", "executorch"
    beside: tuple[str, ...] = ()

    def __init__(self, path: Path, threads: int | None = None) -> None:
        # The extension module alone: executorch.runtime also imports the converter, which takes seconds.
        self.runtime = imported("extension.pybindings._C")
        self.threads = threads or torch.get_num_threads()
        self.data = path.read_bytes()  # the program points into it
        with silent():
            self.program: Any = self.runtime._load_program_from_buffer(
                self.data, program_verification=self.runtime.Verification.InternalConsistency
            )
            self.card = _card(self.program)
            given = self.program.method_meta("forward").input_tensor_meta(0)
        self.shape = tuple(given.sizes())
        if len(self.shape) != 4 or given.dtype() != FLOAT32:
            raise ValueError(f"input of shape {self.shape}, expected float32 (N, 3, S, S)")
        self.method: Any = None
        self.loaded_after = -1  # replacements of the pool before the method was loaded
        self._loaded()

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "ExecuTorchSession":
        """Return a session of a file."""
        return cls(path, threads)

    def bind(self, images: np.ndarray) -> Inference:
        check_images(images, self.shape[1:], pixels=False)
        parts = [torch.from_numpy(part) for part in in_batches(images, self.shape[0])]

        def run() -> np.ndarray:
            method = self._loaded()
            return np.concatenate([method([part])[0].numpy() for part in parts])[: len(images)]

        return run

    def _loaded(self) -> Any:
        """Return the method, loaded again if another session has replaced the thread pool."""
        if self.loaded_after == POOL.replaced and self.runtime._threadpool_get_thread_count() == self.threads:
            return self.method
        with silent():
            self.loaded_after = POOL.resize(self.runtime, self.threads)
            self.method = self.program.load_method("forward")
        return self.method


def _card(program: Any) -> str:
    """Return what the constant method with the card returns; empty if there is none."""
    names = [program.get_method_name(number) for number in range(program.num_methods())]
    found = program.load_method(CARD_KEY)([])[0] if CARD_KEY in names else ""
    return found if isinstance(found, str) else ""
