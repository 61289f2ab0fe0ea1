"""PyTorch as an inference engine."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from igcv.engines.program import read_program
from igcv.engines.session import Inference
from igcv.machine.threads import using_threads


class TorchSession:
    """Session of PyTorch on the CPU, in channels-last memory format."""

    package, suffix, extra = "torch", ".pt2", "deploy"
    beside: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, threads: int | None = None, card: str = "") -> None:
        self.threads = threads or torch.get_num_threads()
        self.network, self.card = network.to(memory_format=torch.channels_last), card

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "TorchSession":
        """Return a session of a torch.export program."""
        program, card = read_program(path)
        return cls(program.module(), threads, card)

    def bind(self, images: np.ndarray) -> Inference:
        given = torch.from_numpy(images)
        if images.dtype == np.float32:
            given = given.to(memory_format=torch.channels_last)

        def run() -> np.ndarray:
            with torch.inference_mode(), using_threads(self.threads):
                return self.network(given).numpy()

        return run
