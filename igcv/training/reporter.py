"""What a run shows while it works: a live display in a terminal, plain lines elsewhere, nothing on other ranks."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from igcv.console import Outliving, PlainConsole
from igcv.training.run import Metrics

SILENCE_S = 60.0  # seconds after which a long epoch says where it is


class Reporter(Protocol):
    """Where the training loop says how it is going."""

    def say(self, text: str) -> None:
        """A message that stays."""

    def step(self, epoch: int, loss: float, images_per_s: float, lr: float) -> None:
        """One optimizer step done; `loss` is the mean of the epoch so far."""

    def epoch(self, row: Metrics) -> None:
        """One epoch done, with its metrics."""

    def refit(self, costs: Sequence[int]) -> None:
        """The run has another number of epochs from now on, `costs` those of a step in each."""


def step_text(epoch: int, loss: float, images_per_s: float, lr: float) -> str:
    """Where the run is within an epoch."""
    return f"epoch {epoch}  loss {loss:.3f}  lr {lr:.2g}  {images_per_s:,.0f} images/s"


def epoch_line(row: Metrics, epochs: int) -> str:
    """An epoch's metrics on one line."""
    left = row["time_left_s"]
    parts = [
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}",
        *([f"{row['input_size']} px"] if "input_size" in row else []),
        f"loss {row['train_loss']:.3f}",
        *([f"top-1 {row['val_top1']:.2f} %"] if "val_top1" in row else []),
        *([f"val loss {row['val_loss']:.3f}"] if "val_loss" in row else []),
        f"lr {row['lr']:.2g}",
        f"{row['images_per_s']:,.0f} images/s",
        f"{int(left // 60)}:{int(left % 60):02d} left",
        *([f"{row['bad_images']} images skipped so far"] if row["bad_images"] else []),
    ]
    return "  ".join(parts)


class Lines:
    """A line per epoch, and one a minute within long ones, for logs and pipes."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self.spoke = time.monotonic()

    def say(self, text: str) -> None:
        for line in text.split("\n"):
            self.console.print(line, soft_wrap=True)
        self.spoke = time.monotonic()

    def step(self, epoch: int, loss: float, images_per_s: float, lr: float) -> None:
        if time.monotonic() - self.spoke > SILENCE_S:
            self.say(f"  {step_text(epoch, loss, images_per_s, lr)}")

    def epoch(self, row: Metrics) -> None:
        self.say(epoch_line(row, self.epochs))

    def refit(self, costs: Sequence[int]) -> None:
        self.epochs = len(costs)


class Live(Lines):
    """The same lines above a bar that moves with every step."""

    def __init__(
        self, console: Console, costs: Sequence[int], steps: int, progress: Progress, task: TaskID
    ) -> None:
        super().__init__(console, len(costs))
        self.costs, self.steps, self.progress, self.task = costs, steps, progress, task

    def step(self, epoch: int, loss: float, images_per_s: float, lr: float) -> None:
        done = self.progress.tasks[self.task].fields["done"] + 1
        text = step_text(epoch, loss, images_per_s, lr)
        self.progress.update(self.task, advance=self.costs[epoch - 1], done=done, text=text)

    def refit(self, costs: Sequence[int]) -> None:
        super().refit(costs)
        self.costs = costs
        self.progress.update(self.task, total=self.steps * sum(costs), steps=self.steps * len(costs))


class Silent:
    """Nothing: for --quiet and for all processes but the first."""

    def say(self, text: str) -> None:
        pass

    def step(self, epoch: int, loss: float, images_per_s: float, lr: float) -> None:
        pass

    def epoch(self, row: Metrics) -> None:
        pass

    def refit(self, costs: Sequence[int]) -> None:
        pass


@contextmanager
def reporter(costs: Sequence[int], steps: int, done: int, quiet: bool) -> Iterator[Reporter]:
    """The reporter that suits the place.

    Args:
        costs: of a step in each epoch of the run, in any unit; the bar moves by them.
        steps: optimizer steps of an epoch.
        done: steps already done, when resuming.
        quiet: say nothing.
    """
    console = PlainConsole(file=Outliving(sys.stdout))
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console, len(costs))
    else:
        columns = (
            BarColumn(30),
            TextColumn("{task.fields[done]}/{task.fields[steps]} steps  {task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            each = [cost for cost in costs for _ in range(steps)]
            task = progress.add_task(
                "", total=sum(each), completed=sum(each[:done]), done=done, steps=len(each), text="starting"
            )
            yield Live(console, costs, steps, progress, task)
