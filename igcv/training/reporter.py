"""Progress output of a run: a progress bar in a terminal, plain lines elsewhere, nothing on other ranks."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from igcv.console import Outliving, PlainConsole
from igcv.training.run import Metrics

SILENCE_S = 60.0  # seconds without output after which a long epoch prints its progress


class Reporter(Protocol):
    """Protocol of the progress output of the training loop."""

    def say(self, text: str) -> None:
        """Print a permanent message."""

    def step(self, epoch: int, loss: float, images_per_s: float, lr: float) -> None:
        """Report a finished optimizer step; `loss` is the mean of the epoch so far."""

    def epoch(self, row: Metrics) -> None:
        """Report a finished epoch with its metrics."""

    def refit(self, costs: Sequence[int]) -> None:
        """Set a new number of epochs; `costs` are the costs of a step in each epoch."""


def step_text(epoch: int, loss: float, images_per_s: float, lr: float) -> str:
    """Return the progress within an epoch as text."""
    return f"epoch {epoch}  loss {loss:.3f}  lr {lr:.2g}  {images_per_s:,.0f} images/s"


def epoch_line(row: Metrics, epochs: int) -> str:
    """Return the metrics of an epoch on one line."""
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
    """Reporter for logs and pipes: a line per epoch, and one per minute in long epochs."""

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
    """Reporter for terminals: the same lines above a progress bar."""

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
    """Reporter without output, for --quiet and for all ranks except 0."""

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
    """Context with a reporter for the standard output.

    Args:
        costs: cost of a step in each epoch, in any unit; the progress bar advances by them.
        steps: optimizer steps per epoch.
        done: finished steps of a resumed run.
        quiet: print nothing.
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
