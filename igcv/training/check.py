"""Check of a data set before a training: `igcv check`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from igcv.data import DataSource, Images, StreamImages
from igcv.data.inspection import Look, look_at_all
from igcv.data.sources.listed import PARTS
from igcv.errors import InputError
from igcv.evaluation.mistakes import data_uri
from igcv.extras import required
from igcv.machine.processes import Process, choose_device
from igcv.machine.threads import available_cores
from igcv.training.auto import in_words
from igcv.training.draft import Draft
from igcv.training.findings import DataCheck, findings, names_of
from igcv.training.job import Job, resolve
from igcv.training.pace import paced
from igcv.training.start import resolve_precision, start_network
from igcv.writing import check_writable, write_file

THUMBNAILS = 8  # images per class on the page
PAIRS = 24  # pairs of equal images on the page


def check(
    data: str,
    *,
    split: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> DataCheck:
    """Check all images of a data set, and the settings and time of a training without a recipe.

    The command is `igcv check`.

    Args:
        data: a data source, as for `igcv.train`.
        split: a CSV list of the images, as for `igcv.train`.
        out: HTML page to write or replace, with thumbnails; None: no page.
        device: device of the training, as for `igcv.train`.
        progress: callback with the number of checked images and of all images.
        settings: settings of the training, by recipe key.

    Returns:
        The findings and the expected training.

    Raises:
        InputError: the data cannot be opened or is a stream, or the page cannot be written.
    """
    if out is not None:
        required("jinja2", "check --out", "report")
        check_writable(Path(out).parent)
    job = resolve(
        Draft({"data": data, "split": str(split or ""), **settings}), Process(choose_device(device))
    )
    parts = parts_of(job.source)
    looks = looks_at(parts, progress)
    checked = findings(job.source, parts, looks)
    if len(checked.unreadable) < len(looks):
        checked = expecting(checked, job)
    if out is not None:
        write_file(Path(out), page_of(checked, parts))
    return checked


def looks_at(parts: Mapping[str, Images], progress: Callable[[int, int], None]) -> list[Look]:
    """Read all images of all parts, in the order of the parts."""
    total = sum(map(len, parts.values()))
    looks: list[Look] = []
    for images in parts.values():
        done = len(looks)
        looks += look_at_all(images, available_cores(), lambda n, _, done=done: progress(done + n, total))  # type: ignore[misc]
    return looks


def expecting(checked: DataCheck, job: Job) -> DataCheck:
    """Return the check with the settings of a training and its expected time, measured on its first steps."""
    network = start_network(job)
    job = paced(resolve_precision(job, network), network)
    assert job.expected_s is not None
    last_s = job.expected_s * job.recipe.step_costs[-1] / sum(job.recipe.step_costs)
    return replace(checked, choices=job.chosen, epoch_s=last_s, training_s=job.expected_s)


def page_of(checked: DataCheck, parts: Mapping[str, Images]) -> bytes:
    """Return the HTML page of a check, with thumbnails."""
    from igcv.report.data_page import data_page  # this and the next import need the extra "report"
    from igcv.report.page import page_bytes

    places = [(images, i) for images in parts.values() for i in range(len(images))]
    numbers = dict(zip(names_of(parts), places, strict=True))

    def picture(name: str) -> str:
        images, i = numbers[name]
        return _picture(images, i)

    kinds = {"equal": checked.equal, "nearly equal": checked.nearly_equal}
    shown = {
        kind: [[(name, picture(name)) for name in pair] for pair in pairs[:PAIRS]]
        for kind, pairs in kinds.items()
    }
    thumbnails = dict(_thumbnails(checked, parts))
    return page_bytes(data_page(checked.as_dict(), list(in_words(checked.choices)), thumbnails, shown))


def _thumbnails(checked: DataCheck, parts: Mapping[str, Images]) -> Iterator[tuple[str, list[str]]]:
    """Yield thumbnails of each class, evenly spread over the images of the first part."""
    images = next(iter(parts.values()))
    for label, name in enumerate(checked.classes):
        members = (images.labels == label).nonzero()[0]
        chosen = members[:: max(len(members) // THUMBNAILS, 1)][:THUMBNAILS]
        yield name, [found for i in chosen if (found := _picture(images, int(i)))]


def _picture(images: Images, i: int) -> str:
    """Return an image as a data URI; empty if it is unreadable."""
    try:
        return data_uri(images[i][0].convert("RGB"))
    except InputError:  # also raised for a damaged record
        return ""


def parts_of(source: DataSource) -> dict[str, Images]:
    """Return the parts of a source that have images, by name.

    Raises:
        InputError: a part is a stream, which has no random access.
    """
    parts = {name: getattr(source, name) for name in PARTS if getattr(source, name) is not None}
    if any(isinstance(images, StreamImages) for images in parts.values()):
        raise InputError(
            f"'{source.spec}' can only be read as a stream, expected images with random access. Give the images as "
            "folder: or rec:"
        )
    return parts
