"""Checkpoints: capture and restore the state of a run; save it on time and on signals."""

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from torch import Tensor, nn

from igcv.data import Loader
from igcv.errors import Interrupted
from igcv.machine.processes import gather, together
from igcv.models import blocks_with_forms
from igcv.terminal import quoted
from igcv.training.loop import Wish
from igcv.training.run import Run
from igcv.training.state import EpochProgress, State, combined, flatten_optimizer, restore_optimizer
from igcv.training.trainer import Trainer
from igcv.weights.files import fill

# Ctrl-C; job scheduler; closed terminal
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_S = 1.0  # seconds; a terminal and torchrun both forward the same Ctrl-C, at slightly different times


def capture(t: Trainer, epoch: int, best: float | None, bad: dict[str, str]) -> State:
    """Return the state between two epochs, which is the same in all processes."""
    tensors = {
        f"{part}.{n}": x for part, module in _modules(t).items() for n, x in module.state_dict().items()
    }
    momenta, scalars = flatten_optimizer(t.optimizer)
    scalars["scaler"] = t.scaler.state_dict()
    scalars["forms"] = {name: block.form for name, block in blocks_with_forms(t.network).items()}
    if t.recipe.form == "measure":
        scalars["measured_forms"] = {str(size): forms for size, forms in t.forms.items()}
    return State(epoch, best, t.recipe.batch_size, (), bad, tensors | momenta, scalars)


def capture_within(t: Trainer, before: State, progress: EpochProgress, bad: dict[str, str]) -> State:
    """Return the state within the epoch after `before`, with the running statistics of every process.

    All processes must call this function.
    """
    buffers = {
        f"{part}.{n}": b.cpu() for part, module in _modules(t).items() for n, b in module.named_buffers()
    }
    shares = gather((progress, buffers, bad))
    state = capture(t, before.epoch, before.best, {})
    for rank, (_, others, found) in enumerate(shares):
        state.bad.update(found)
        if rank:
            state.tensors.update({f"process{rank}.{name}": tensor for name, tensor in others.items()})
    return replace(state, progress=tuple(share[0] for share in shares))


def restore(t: Trainer, state: State, folder: Path) -> EpochProgress:
    """Load a state into a trainer; return the progress of this process in the next epoch.

    If the number of processes has changed, each process gets the mean of the running statistics, and rank 0 gets the
    combined measurements. If the batch size has changed, the epoch resumes after the same number of images.
    """
    before = len(state.progress)
    for part, module in _modules(t).items():
        fill(module, _under(f"{part}.", state.tensors), f"the {part} in the state of {folder}")
        others = [_under(f"process{rank}.{part}.", state.tensors) for rank in range(1, before)]
        _set_buffers(module, others, t.process.rank if before == t.process.world_size else None)
    restore_optimizer(t.optimizer, state.tensors, state.scalars)
    if t.scaler.is_enabled():
        t.scaler.load_state_dict(state.scalars["scaler"])
    return _share(t, state)


def _set_buffers(module: nn.Module, others: list[dict[str, Tensor]], rank: int | None) -> None:
    """Replace the buffers of `module` (those of rank 0) by those of `rank`, or by the mean of all if None."""
    for name, buffer in module.named_buffers():
        if rank:
            buffer.copy_(others[rank - 1][name])
        elif rank is None and others and buffer.is_floating_point():
            for other in others:
                buffer.add_(other[name].to(buffer.device))
            buffer.div_(len(others) + 1)


def _share(t: Trainer, state: State) -> EpochProgress:
    """Return this process's part of the measurements in the unfinished epoch."""
    parts, rank = state.progress, t.process.rank
    if not parts:
        return EpochProgress()
    own = combined(parts) if rank == 0 else EpochProgress(parts[0].steps, left_out=parts[0].left_out)
    if len(parts) == t.process.world_size:
        own = parts[rank]
    return replace(own, steps=own.steps * state.batch_size // t.recipe.batch_size)


class Watch(AbstractContextManager["Watch"]):
    """Context that records signals instead of obeying them; a second Ctrl-C ends the process at once.

    Args:
        save_s: seconds between two saves; infinity: no saves.
    """

    def __init__(self, save_s: float) -> None:
        self._save_s, self._saved = save_s, time.monotonic()
        self._signal, self._caught = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # other threads may not set signal handlers
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wish(self) -> Wish:
        """Return the wish of this process after a step."""
        due = time.monotonic() - self._saved >= self._save_s
        return Wish(save=int(due), signal=self._signal)

    def saved(self) -> None:
        """Restart the time to the next save."""
        self._saved = time.monotonic()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal and number == signal.SIGINT and now - self._caught > TOGETHER_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self._signal:
            self._signal, self._caught = number, now


@dataclass
class CheckpointKeeper:
    """Saves a run within an epoch, when a save is due or a signal ends the run."""

    trainer: Trainer
    loader: Loader
    run: Run | None  # the run folder, on rank 0
    state: State  # at the start of the epoch
    watch: Watch

    def wish(self) -> Wish:
        return self.watch.wish()

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        """Save the run; raise Interrupted if a signal ends it."""
        state = self.save(progress)
        if wish.signal:
            number = signal.Signals(wish.signal)
            message = f"{number.name}: saved after step {progress.steps} of epoch {state.epoch + 1}"
            if self.run:  # rank 0 prints the message for all processes
                folder = quoted(self.run.path)
                message += f". Resume with: igcv train --resume --out {folder}"
                if state.epoch:
                    message += f", or use the best epoch so far: igcv predict {folder} IMAGE"
            raise Interrupted(message, number)

    def save(self, progress: EpochProgress) -> State:
        """Save the run; all processes must call this method."""
        state = capture_within(self.trainer, self.state, progress, self.loader.bad)
        with together():
            if self.run:
                self.run.save_state(self.trainer.recipe, state)
        self.watch.saved()
        return state


def _modules(t: Trainer) -> dict[str, nn.Module]:
    """Return the modules of a trainer that have weights, by name."""
    return {"model": t.network} | ({"ema": t.ema.module} if t.ema is not None else {})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
