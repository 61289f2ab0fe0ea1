"""HTML report of run folders, for `igcv report` and the end of every run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igcv.analysis import summarize
from igcv.classifier import LAST, network_of
from igcv.errors import InputError
from igcv.evaluation.scores import class_scores, constant_answer, constant_note
from igcv.extras import required
from igcv.reading import read_text
from igcv.report.run import RunReport, StageCost, confusion_of
from igcv.training.recipe import Recipe
from igcv.training.recipe_file import load_recipe
from igcv.training.run import EVALUATION, RECIPE, REPORT, SUMMARY, read_metrics
from igcv.weights import load_weights
from igcv.writing import write_file

NEEDED = ("jinja2", "plotly")  # packages of the extra "report"


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write an HTML report of one or more runs, finished or not.

    The command is `igcv report`.

    Args:
        runs: the run folders.
        out: the .html file to write or replace. None: report.html in the run folder; for several runs, runs.html.

    Returns:
        The path of the report.

    Raises:
        InputError: a folder is not a run folder, has no finished epoch or has an unreadable file, or `out` cannot be
            written.
    """
    for package in NEEDED:
        required(package, "report", "report")
    from igcv.report.page import page_bytes, report_page

    folders = [Path(run) for run in runs]
    page = Path(out or (folders[0] / REPORT if len(folders) == 1 else "runs.html"))
    write_file(page, page_bytes(report_page([read_run(folder) for folder in folders])))
    return page


def read_run(path: Path) -> RunReport:
    """Return the data of a run for the report.

    Raises:
        InputError: the folder is not a run folder, has no finished epoch, or has an unreadable file.
    """
    if not (path / RECIPE).is_file():
        raise InputError(f"'{path}' is not a run folder: {RECIPE} is missing. Give a folder of igcv train")
    history = read_metrics(path)
    if not all(_is_row(row) for row in history):
        raise InputError(f"unexpected content in the metrics log of '{path}'. Resume the run, or train again")
    if not history:
        raise InputError(f"the run in '{path}' has no finished epoch yet. Try again after the first epoch")
    recipe = load_recipe(path / RECIPE)
    summary = _read_json(path / SUMMARY) or {}
    evaluation = _evaluation(path / EVALUATION)
    return RunReport(
        name=str(path),
        recipe=_as_text(recipe) | {"data": recipe.data_set},
        defaults=_as_text(Recipe()),
        history=history,
        stages=_stages(path, recipe),
        evaluation=evaluation,
        note=constant_note(confusion_of(evaluation), evaluation["classes"]) if evaluation else "",
        scores=_scores(evaluation) if evaluation else (),
        environment={key: str(value) for key, value in dict(summary.get("machine", {})).items()},
    )


def judged(path: Path) -> tuple[str | None, str]:
    """Return the class whose constant prediction is as good as a run's best weights, with a note."""
    evaluation = _evaluation(path / EVALUATION)
    if evaluation is None or (answer := constant_answer(confusion_of(evaluation))) is None:
        return None, ""
    return evaluation["classes"][answer], constant_note(confusion_of(evaluation), evaluation["classes"])


def _scores(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scores of the classes that have images, as dictionaries."""
    names = evaluation["classes"]
    found = zip(names, class_scores(confusion_of(evaluation), len(names)), strict=True)
    return [{"class": name, **scores._asdict()} for name, scores in found if scores.images]


def _is_row(row: Any) -> bool:
    """Return whether an object is a valid row of a metrics log."""
    return (
        isinstance(row, dict)
        and all(isinstance(value, int | float) for value in row.values())
        and row.keys()
        >= {"epoch", "train_loss", "lr", "images_per_s", "train_time_s", "data_wait_s", "epoch_time_s"}
        and {"val_loss", "val_top1"} & row.keys() in (set(), {"val_loss", "val_top1"})
    )


def _as_text(recipe: Recipe) -> dict[str, str]:
    """Return the settings as text for the page."""
    return {key: "" if value is None else str(value) for key, value in asdict(recipe).items()}


def _stages(path: Path, recipe: Recipe) -> list[StageCost]:
    """Return the parameters and multiply-adds of the stages of the run's network."""
    _, card = load_weights(path / LAST)
    rows = summarize(network_of(card), recipe.input_size)
    return [StageCost(row.name, row.parameters, row.multiply_adds) for row in rows]


def _evaluation(path: Path) -> dict[str, Any] | None:
    """Return the evaluation of a run's best epoch; None without validation images."""
    found = _read_json(path)
    if found is not None and not _is_evaluation(found):
        raise InputError(f"unexpected content in '{path}'. Remove the file to write the report without it")
    return found


def _is_evaluation(found: Any) -> bool:
    """Return whether an object is a valid evaluation, with labels of its own classes only."""
    try:
        classes = range(len(found["classes"]))
        labels = [label for *pair, _ in found["confusion"] for label in pair]
        for mistake in found["mistakes"]:
            labels += [mistake["label"], *(guess for guess, _ in mistake["guesses"])]
        counts = [images for *_, images in found["confusion"]]
        texts = [*found["classes"], *(m[key] for m in found["mistakes"] for key in ("image", "picture"))]
        shares = [share for m in found["mistakes"] for _, share in m["guesses"]]
        return (
            all(isinstance(label, int) and label in classes for label in labels)
            and all(isinstance(n, int) for n in [found["epoch"], *counts])
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(share, float | int) for share in shares)
        )
    except (KeyError, TypeError, ValueError):
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing."""
    if not path.is_file():
        return None
    try:
        return json.loads(read_text(path, "JSON"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"cannot read '{path}' ({error}). Remove the file to write the report without it"
        ) from error
