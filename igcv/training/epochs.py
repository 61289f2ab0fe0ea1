"""Epochs of a run: train, evaluate and save each epoch, then write the summary."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from igcv.data import Loader
from igcv.errors import InputError, some
from igcv.evaluation.accuracy import Evaluation, NotFiniteError, accuracy_of
from igcv.extras import installed
from igcv.machine.host import host
from igcv.machine.memory import peak_mib, reset_peak
from igcv.machine.processes import from_main, gather, highest, share_buffers, together
from igcv.report.run import best_row, score
from igcv.training.budget import ended, fitted, time_left_s
from igcv.training.checkpoint import CheckpointKeeper, Watch, capture
from igcv.training.classes import check_readable
from igcv.training.job import Job
from igcv.training.loop import NonFiniteError, train_epoch
from igcv.training.memory import explained
from igcv.training.optimize import learning_rate
from igcv.training.parts import Parts
from igcv.training.recipe import Recipe
from igcv.training.reporter import Reporter
from igcv.training.run import REPORT, Metrics, Run, write_events
from igcv.training.run_report import NEEDED, judged, write_report
from igcv.training.state import EpochProgress, State, combined
from igcv.training.trainer import Trainer
from igcv.version import __version__
from igcv.weights.card import Card

MEASURED = (
    "top1",
    "top5",
    "balanced",
    "images",
    "precision",
)  # evaluation results on the card of the weights
SHOWN_BAD = 5  # unreadable images named per epoch; the metrics log counts all


@dataclass(frozen=True)
class Training:
    """A training between its phases: opened, built, restored, run (see igcv.training.phases).

    Attributes:
        trainer: network, optimizer and other objects of the training loop.
        parts: parts of the run; the part of the current epoch is open.
        state: state of the run.
        begun: progress of this process in the unfinished epoch.
        run: run folder; None in processes that do not write.
    """

    trainer: Trainer
    parts: Parts
    state: State
    begun: EpochProgress
    run: Run | None


def run_epochs(training: Training, report: Reporter) -> Metrics:
    """Train and evaluate the remaining epochs; return the summary. Rank 0 writes the run folder.

    Raises:
        Interrupted: a signal ended the run, and the run is saved.
        InputError: the input is invalid, e.g. unreadable images or a non-finite loss.
    """
    trainer, parts, run = training.trainer, training.parts, training.run
    state, begun, recipe = training.state, training.begun, training.parts.job.recipe
    parts.train.bad |= state.bad
    history = from_main(run.history(state.epoch) if run else [])
    result = None
    with Watch(60 * recipe.save_minutes) as watch:
        while not ended(state, recipe, history):
            epoch = state.epoch
            started = time.perf_counter() - begun.time_s
            if parts.go_to(epoch):
                trainer.use_forms(parts.size)
                report.say(f"image size {parts.size} x {parts.size} pixels from epoch {epoch + 1}")
            parts.train.set_epoch(epoch, begun.steps * recipe.accumulation)
            keeper = CheckpointKeeper(trainer, parts.train, run, state, watch)
            own = _train(trainer, parts, epoch, report, begun, keeper)
            measured, begun = combined(gather(own)), EpochProgress()
            try:
                result = _evaluate(parts, trainer)
            except NotFiniteError as error:  # keep the last checkpoint: a run cannot resume from this state
                raise type(error)(
                    f"{error} after epoch {epoch + 1}. Lower lr, or add warmup_epochs or clip_grad_norm. Then resume "
                    "from the last checkpoint with --resume"
                ) from error
            except InputError as error:  # e.g. a broken image; --resume then evaluates without training again
                keeper.save(own)
                raise type(error)(f"{error}. Then use --resume") from error
            row = _row(recipe, epoch, measured, result, len(parts.train.bad), time.perf_counter() - started)
            best = _best(_best_before(recipe, epoch, state), score(row, recipe.best_by))
            state = capture(trainer, epoch + 1, best, dict(parts.train.bad))
            (row["peak_memory_mib"],) = highest(peak_mib(parts.job.process.device))
            recipe = from_main(fitted(recipe, [*history, row]))
            row["time_left_s"] = round(time_left_s(recipe, [*history, row]), 1)
            if recipe.epochs != trainer.recipe.epochs:
                trainer, parts.job = replace(trainer, recipe=recipe), replace(parts.job, recipe=recipe)
                report.refit(recipe.step_costs)
            training = replace(training, trainer=trainer, state=state)
            with together():
                _save(training, result, row, history)
            watch.saved()
            report.epoch(row)
    if result is None:  # all epochs were finished, only the summary was missing
        result = _evaluate(parts, trainer)
    with together():
        return _finish(training, history, result, report)


def _train(
    trainer: Trainer,
    parts: Parts,
    epoch: int,
    report: Reporter,
    begun: EpochProgress,
    keeper: CheckpointKeeper,
) -> EpochProgress:
    """Train one epoch; name unreadable images, and the images of a batch with a non-finite loss."""
    job, loader = parts.job, parts.train
    reset_peak(job.process.device)
    try:
        with reporting_bad(loader, keeper.run, report), explained(job, trainer.network, job.batch_size):
            trained = train_epoch(trainer, loader, epoch, report, begun, keeper)
        with together():
            check_readable(job.source, loader.bad)
        return trained
    except NonFiniteError as error:
        shown = some(loader.names(error.batch), SHOWN_BAD) or "unknown"
        raise InputError(f"{error}. Images of the batch: {shown}") from error


@contextmanager
def reporting_bad(loader: Loader, run: Run | None, report: Reporter) -> Iterator[None]:
    """Context that reports unreadable images found in any process and shares their list with all processes.

    If they exceed the limit, the list is written before the run stops.
    """
    known = set(loader.bad)
    try:
        yield
    except InputError:
        if run:
            run.list_bad(loader.bad)
        raise
    for found in gather({name: reason for name, reason in loader.bad.items() if name not in known}):
        loader.bad |= found
    new = [reason for name, reason in loader.bad.items() if name not in known]
    for reason in new[:SHOWN_BAD]:
        report.say(f"  skipped: {reason}")
    if len(new) > SHOWN_BAD:
        report.say(f"  skipped: {len(new) - SHOWN_BAD} more images")
    if run and new:
        run.list_bad(loader.bad)


def _evaluate(parts: Parts, trainer: Trainer) -> Evaluation | None:
    """Evaluate the EMA weights, or the network without EMA; return None without validation images."""
    share_buffers(trainer.network, trainer.ema)
    job, loader = parts.job, parts.val
    if loader is None:
        return None
    found = accuracy_of(trainer.evaluated, loader, job.process.device, loader.names)
    return replace(found, data=job.source.spec, data_name=job.source.name, class_names=job.source.class_names)


def _best_before(recipe: Recipe, epoch: int, state: State) -> float | None:
    """Return the best score before `epoch`; None if the image size changes, which makes scores incomparable."""
    return state.best if recipe.size_at(epoch) == recipe.size_at(epoch - 1) else None


def _best(*scores: float | None) -> float | None:
    """Return the highest score; None if all scores are None."""
    return max((score for score in scores if score is not None), default=None)


def _save(training: Training, result: Evaluation | None, row: Metrics, history: list[Metrics]) -> None:
    """Add the row of an epoch to the history; on rank 0, write the files of the epoch."""
    job, trainer, run, state = training.parts.job, training.trainer, training.run, training.state
    history.append(row)
    if run is None:
        return
    is_best = result is None or score(row, job.recipe.best_by) == state.best
    if is_best and result is not None:
        run.save_evaluation(_evaluation(job, row, result))
    weights = trainer.evaluated.state_dict()
    run.save_epoch(job.recipe, state, weights, _card(job, row, result), is_best, history)


def _evaluation(job: Job, row: Metrics, result: Evaluation) -> Metrics:
    """Return the content of the evaluation file of the run."""
    return {
        "epoch": row["epoch"],
        "data": job.source.name,
        "classes": list(job.source.class_names),
        "confusion": [[*pair, images] for pair, images in result.confusion.items()],
        "mistakes": [mistake.as_dict(job.preprocessing) for mistake in result.mistakes],
    }


def _row(
    recipe: Recipe, epoch: int, measured: EpochProgress, result: Evaluation | None, bad: int, time_s: float
) -> Metrics:
    """Return the row of an epoch in the metrics log; times in seconds, accuracies in percent."""
    row: Metrics = {
        "epoch": epoch + 1,
        "train_loss": round(measured.loss, 6),
        "lr": learning_rate(recipe, epoch + 1 - 1 / max(measured.steps, 1)),  # of the last step
        "images_per_s": round(measured.images / measured.time_s, 2),
        "train_time_s": round(measured.time_s, 3),
        "data_wait_s": round(measured.data_wait_s, 3),
        "epoch_time_s": round(time_s, 3),
        "bad_images": bad,
    }
    if recipe.progressive_sizes:
        row["input_size"] = recipe.size_at(epoch)
    if result is not None:
        row |= {"val_loss": round(result.loss, 6), "val_top1": result.top1}
        row |= {} if result.top5 is None else {"val_top5": result.top5}
        row["val_balanced"] = result.balanced
    return row


def _card(job: Job, row: Metrics, result: Evaluation | None) -> Card:
    """Return the card of the weights of this epoch; its input size is that of the evaluated images."""
    recipe = job.recipe
    measured = (
        {} if result is None else {key: x for key in MEASURED if (x := getattr(result, key)) is not None}
    )
    return Card(
        model=recipe.model,
        num_classes=len(job.source.class_names),
        multiplier=recipe.multiplier,
        input_size=job.preprocessing.input_size,
        strides=recipe.strides,
        class_names=job.source.class_names,
        preprocessing=job.preprocessing.to_dict(),
        recipe={key: value for key, value in vars(recipe).items() if value is not None},
        results={**measured, "data": job.source.name, "epoch": row["epoch"]},
        source={"trained_with": f"igcv {__version__}"},
    )


def _finish(
    training: Training, history: list[Metrics], result: Evaluation | None, report: Reporter
) -> Metrics:
    """Write TensorBoard events, summary and report; return the summary."""
    job, trainer, run = training.parts.job, training.trainer, training.run
    best = best_row(history, job.recipe.best_by) or {}
    no_better_than, note = judged(run.path) if run else (None, "")
    summary: Metrics = {
        "model": job.recipe.model,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "data": job.source.name,
        "epochs": history[-1]["epoch"] if history else job.recipe.epochs,
        "time_s": round(sum(row["epoch_time_s"] for row in history), 2),
        "best_top1": best.get("val_top1"),
        "best_balanced": best.get("val_balanced"),
        "best_epoch": best.get("epoch"),
        "no_better_than": no_better_than,
        "last": result.as_dict() if result else None,
        "images_per_s": history[-1]["images_per_s"] if history else None,
        "bad_images": history[-1]["bad_images"] if history else 0,
        "peak_memory_mib": max((row.get("peak_memory_mib", 0) for row in history), default=None),
        "machine": host(job.process.device, job.process.world_size),
    }
    if run:
        run.save_summary(summary)
        if note:
            report.say(f"{note}. Train longer, or give class_weights=balanced or sampling=balanced")
        _illustrate(run, history, report)
    return summary


def _illustrate(run: Run, history: list[Metrics], report: Reporter) -> None:
    """Write TensorBoard events and the report if their packages are installed."""
    missing = []
    if installed("tensorboard"):
        write_events(run.path / "tensorboard", history)
    else:
        missing.append("TensorBoard events")
    if installed(*NEEDED):
        write_report([run.path])
    else:
        missing.append(REPORT)
    if missing:
        report.say(f"not written: {' and '.join(missing)}; install them with: pip install 'igcv[report]'")
