"""Training in phases: opened, built, restored, run. `igcv.train` is the entry point."""

import os
import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from igcv.classifier import Classifier, load
from igcv.errors import InputError
from igcv.machine.memory import keep_freed_memory
from igcv.machine.processes import Process, from_main, parallel, process_group, together
from igcv.terminal import counted
from igcv.training.checkpoint import restore
from igcv.training.choose_forms import choose_forms
from igcv.training.draft import Draft, resolve_recipe
from igcv.training.epochs import Training, run_epochs
from igcv.training.headline import headline
from igcv.training.job import resolve
from igcv.training.kept import kept_by
from igcv.training.memory import explained
from igcv.training.pace import paced
from igcv.training.parts import Parts
from igcv.training.recipe import Recipe
from igcv.training.recipe_file import load_recipe
from igcv.training.reporter import reporter
from igcv.training.run import RECIPE, Metrics, Run, summary_of, was_restarted
from igcv.training.start import lay_out_gradients, make_trainer, resolve_precision, start_network
from igcv.training.state import EpochProgress, State
from igcv.writing import check_writable

# Unresolved values; the recipe of a run stores the resolved ones.
UNRESOLVED = {"input_size": 0, "strides": (), "resident": "auto", "precision": "auto"}


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        folder: the run folder (see igcv.training.run).
        summary: best and last accuracy in percent, time, parameters, and the machine.
        was_there: whether the run was already finished and nothing was trained.
    """

    folder: Path
    summary: Metrics
    was_there: bool = False

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier of the best epoch; without validation images, of the last epoch."""
        return load(self.folder)


def train(
    recipe: Recipe | Draft | str | Path | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train a network and write the results to a run folder.

    The command is `igcv train`. Under torchrun, the processes share each batch.

    Args:
        recipe: a recipe, a recipe file, or the name of a recipe that comes with igcv. None: igcv chooses the settings
            that are not given from the data and the device (see igcv.training.auto); with `resume`, the run's recipe.
        out: the run folder, a new one unless `resume`. None: runs/DATA, or runs/MODEL-DATA with a recipe. If it holds
            a finished run with the same settings, that run is returned.
        resume: resume the run in `out` from its newest checkpoint.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        quiet: print nothing.
        settings: changes to the recipe, by key, e.g. `data="folder:photos", epochs=30`.

    Returns:
        The finished training.

    Raises:
        InputError: the input is invalid.
        Interrupted: SIGINT, SIGTERM or SIGHUP ended the run, and the run is saved.
    """
    out = None if out is None else Path(os.path.expanduser(out))
    if resume and recipe is None:
        recipe = run_recipe_file(out)
    resolved = resolve_recipe(recipe, settings)
    folder = out or default_folder(resolved)
    with process_group(device) as process:
        if not resume and from_main(was_restarted(folder)):
            resume = True
            if isinstance(resolved, Draft):  # the choices may depend on the speed measured at the first start
                resolved = resolve_recipe(run_recipe_file(folder), resolved.given)
        if (there := from_main(finished_summary(folder, resolved, resume))) is not None:
            return TrainedRun(folder, there, was_there=True)
        summary = train_in(process, resolved, folder, resume=resume, quiet=quiet)
    return TrainedRun(folder, summary)


def default_folder(recipe: Recipe | Draft) -> Path:
    """Return the default run folder of a training."""
    if isinstance(recipe, Draft):
        return Path("runs") / folder_name(recipe.recipe.data_set)
    return Path("runs") / f"{recipe.model}-{folder_name(recipe.data_set)}"


def folder_name(data: str) -> str:
    """Return a folder name for a data set with the given name.

    >>> [folder_name(name) for name in ("digits", "my photos", "train.rec, val.rec", "")]
    ['digits', 'my_photos', 'train_rec', 'run']
    """
    first, _, _ = data.partition(",")
    return re.sub(r"[^a-z0-9]+", "_", first.lower()).strip("_")[:40] or "run"


def finished_summary(folder: Path, recipe: Recipe | Draft, resume: bool = False) -> Metrics | None:
    """Return the summary of the run in a folder if the run is finished and has these settings; else None.

    A run that was resumed for more epochs also counts, unless `resume` asks for fewer epochs.
    """
    if not (folder / RECIPE).is_file():
        return None
    stored = load_recipe(folder / RECIPE)
    given = recipe.given if isinstance(recipe, Draft) else vars(recipe)
    fitted = {"epochs", "warmup_epochs"} if stored.max_minutes else set()
    if not resume and given.get("epochs", stored.epochs) < stored.epochs:
        fitted.add("epochs")
    same = all(
        value in (getattr(stored, key), UNRESOLVED.get(key))
        for key, value in given.items()
        if key not in fitted
    )
    return summary_of(folder, stored.epochs) if same else None


def run_recipe_file(out: str | Path | None) -> Path:
    """Return the recipe file of the run to resume."""
    if out is None:
        raise InputError("--resume needs --out, the folder of the run to resume")
    file = Path(out) / RECIPE
    if not file.is_file():
        raise InputError(f"no run to resume in '{out}': {RECIPE} is missing. Omit --resume to start a run")
    return file


def train_in(
    process: Process, recipe: Recipe | Draft, out: Path, *, resume: bool = False, quiet: bool = False
) -> Metrics:
    """Train in a process of the process group, where rank 0 writes; return the summary."""
    if process.device.type == "cpu":
        keep_freed_memory()
    with together():
        training = opened(process, recipe, out, resume, quiet)
    training = built(training)
    with together():  # after `built`, which copies the running statistics of rank 0 to all processes
        training = restored(training, out) if resume else training
    silent = quiet or not process.is_main
    with closing(training.parts), reporter(*_progress(training), silent) as report:
        if not silent:  # the headline reads all files
            report.say(headline(training, out))
        if training.parts.job.recipe.form == "measure":
            counts = Counter(training.trainer.use_forms(training.parts.size).values()).most_common()
            forms = ", ".join(f"{form} {counted(count, 'block')}" for form, count in counts)
            report.say(f"fastest forms: {forms}")
        return run_epochs(training, report)


def opened(process: Process, given: Recipe | Draft, out: Path, resume: bool, quiet: bool = False) -> Training:
    """Open data, run folder and state, and create the network; invalid input raises here."""
    if process.is_main:
        check_writable(out)
    torch.manual_seed(given.recipe.seed if isinstance(given, Draft) else given.seed)
    kept = kept_by(out) if resume else None
    job = resolve(given, process, kept)
    recipe = job.recipe
    folder = Run(out, resume, write=process.is_main) if process.is_main or resume else None
    state = State()
    if folder and resume:
        job = replace(job, recipe=folder.check_recipe(job.recipe))
        state = folder.load_state()
        beyond = state.epoch > recipe.epochs or (state.epoch == recipe.epochs and state.progress)
        if beyond or (state.epoch == recipe.epochs and folder.is_finished(recipe.epochs)):
            raise InputError(
                f"the run in '{out}' is complete ({counted(state.epoch, 'epoch')}). To train longer, give a larger "
                "epochs=N"
            )
    network = start_network(job)
    job = resolve_precision(job, network)
    if not resume and (recipe.max_minutes or not quiet):
        job = paced(job, network)
    recipe = job.recipe
    parts = Parts.of(job.at(state.epoch))
    if len(parts.train) < recipe.accumulation:
        raise InputError(
            f"'{recipe.data}' gives {counted(len(parts.train), 'batch')}, expected at least accumulation = "
            f"{recipe.accumulation}. Lower accumulation or batch_size"
        )
    if folder and process.is_main:
        folder.keep_data(job.source, resume)
    return Training(
        make_trainer(job, network), parts, state, EpochProgress(), folder if process.is_main else None
    )


def built(training: Training) -> Training:
    """Choose the block forms, and wrap the network for several processes."""
    job, trainer = training.parts.job, choose_forms(training.parts.job, training.trainer, training.state)
    process, recipe = job.process, job.recipe
    model = parallel(trainer.network, process, recipe.sync_batch_norm, recipe.accumulation)
    trainer = replace(trainer, model=model)
    if process.world_size > 2:
        with explained(job, trainer.network, job.batch_size):
            lay_out_gradients(job, trainer)
    trainer.use_forms(training.parts.size)
    return replace(training, trainer=trainer)


def restored(training: Training, out: Path) -> Training:
    """Load the saved state of the run into the trainer."""
    return replace(training, begun=restore(training.trainer, training.state, out))


def _progress(training: Training) -> tuple[list[int], int, int]:
    """Return the values for a progress bar: pixels per image in each epoch, steps per epoch, and finished steps."""
    recipe, state = training.parts.job.recipe, training.state
    steps = len(training.parts.train) // recipe.accumulation
    return recipe.step_costs, steps, steps * state.epoch + training.begun.steps
