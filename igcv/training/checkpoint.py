"""From a trainer to the state of its run and back; and who saves it between two steps."""

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
from igcv.training.loop import Trainer, Wish
from igcv.training.run import Run
from igcv.training.state import EpochProgress, State, combined, flatten_optimizer, restore_optimizer
from igcv.weights.files import fill

# Ctrl-C; a scheduler's; that of a terminal that is closed
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_S = 1.0  # a terminal and torchrun both pass on the same Ctrl-C, one shortly after the other


def capture(t: Trainer, epoch: int, best: float | None, bad: dict[str, str]) -> State:
    """The state between two epochs, when all processes hold the same."""
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
    """The state in the epoch that follows `before`, called in all processes: their running statistics differ there."""
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
    """Fill a trainer with a state; returns how far this process had come in the next epoch.

    With another number of processes than before, each gets the mean of their running statistics, and the first what
    they measured; with another batch size the epoch goes on where as many images have been seen.
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
    """Give `module`, with the first process's buffers, those of process `rank`, or the mean of all."""
    for name, buffer in module.named_buffers():
        if rank:
            buffer.copy_(others[rank - 1][name])
        elif rank is None and others and buffer.is_floating_point():
            for other in others:
                buffer.add_(other[name].to(buffer.device))
            buffer.div_(len(others) + 1)


def _share(t: Trainer, state: State) -> EpochProgress:
    """This process's part of what was measured in the epoch so far."""
    parts, rank = state.progress, t.process.rank
    if not parts:
        return EpochProgress()
    own = combined(parts) if rank == 0 else EpochProgress(parts[0].steps, left_out=parts[0].left_out)
    if len(parts) == t.process.world_size:
        own = parts[rank]
    return replace(own, steps=own.steps * state.batch_size // t.recipe.batch_size)


class Watch(AbstractContextManager["Watch"]):
    """Notes signals instead of obeying them, while it is open; a second Ctrl-C ends the process at once.

    Args:
        save_s: seconds between two saves; infinity for none.
    """

    def __init__(self, save_s: float) -> None:
        self._save_s, self._saved = save_s, time.monotonic()
        self._signal, self._caught = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may ask for signals
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wish(self) -> Wish:
        """What this process wants after the step."""
        due = time.monotonic() - self._saved >= self._save_s
        return Wish(save=int(due), signal=self._signal)

    def saved(self) -> None:
        """Count the time to the next save from now."""
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
    """Saves in the middle of an epoch, when it is time or when a signal asks the run to end."""

    trainer: Trainer
    loader: Loader
    run: Run | None  # the folder, in the process that writes
    state: State  # at the beginning of the epoch
    watch: Watch

    def wish(self) -> Wish:
        return self.watch.wish()

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        """Save; raises Interrupted if a signal asks the run to end."""
        state = self.save(progress)
        if wish.signal:
            number = signal.Signals(wish.signal)
            message = f"{number.name}: saved after step {progress.steps} of epoch {state.epoch + 1}"
            if self.run:  # this process says it for all
                folder = quoted(self.run.path)
                message += f"; resume it with: igcv train --resume --out {folder}"
                if state.epoch:
                    message += f" or use the best epoch so far: igcv predict {folder} IMAGE"
            raise Interrupted(message, number)

    def save(self, progress: EpochProgress) -> State:
        """Save, called in all processes."""
        state = capture_within(self.trainer, self.state, progress, self.loader.bad)
        with together():
            if self.run:
                self.run.save_state(self.trainer.recipe, state)
        self.watch.saved()
        return state


def _modules(t: Trainer) -> dict[str, nn.Module]:
    """What of a trainer has weights."""
    return {"model": t.network} | ({"ema": t.ema.module} if t.ema is not None else {})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
