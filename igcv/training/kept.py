"""Record of a run's data, checked when the run is resumed: split, classes and labels."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from igcv.classifier import LAST, RECIPE, own_split
from igcv.data import DataSource, StreamImages
from igcv.data.classes import ORDER, KnownClasses, matched
from igcv.data.sources.listed import PARTS, SplitList
from igcv.data.sources.parts import Rule
from igcv.data.sources.spec import same_source
from igcv.errors import InputError
from igcv.training.recipe import Recipe
from igcv.training.recipe_file import read_toml
from igcv.weights import load_weights
from igcv.writing import to_json, write_file

DATA = "data.json"


@dataclass(frozen=True)
class KeptData:
    """Summary of the data of a run.

    Attributes:
        spec: the data source.
        classes: class names in label order.
        images: number of images per part; None for a missing part.
        labels: SHA-256 of the labels of all parts, in order; for a stream, of its number of images. Empty for runs of
            versions that did not record it.
    """

    spec: str
    classes: tuple[str, ...]
    images: tuple[int | None, ...] = ()
    labels: str = ""

    @classmethod
    def of(cls, source: DataSource) -> "KeptData":
        """Return the record of a data source."""
        parts = [source.train, source.val, source.test]
        digest = hashlib.sha256()
        for name, images in zip(PARTS, parts, strict=True):
            digest.update(f"{name} {'none' if images is None else len(images)} ".encode())
            if images is not None and not isinstance(images, StreamImages):
                digest.update(images.labels.astype("<i8").tobytes())
        counts = tuple(None if images is None else len(images) for images in parts)
        return cls(source.spec, source.class_names, counts, digest.hexdigest())

    def write(self, folder: Path) -> None:
        """Write the record into a run folder."""
        write_file(folder / DATA, (to_json(asdict(self)) + "\n").encode())


@dataclass(frozen=True)
class KeptRun:
    """Split and data record of a run to resume; `data` is None if the folder has no record."""

    split: SplitList | Rule
    data: KeptData | None


def kept_by(folder: Path) -> KeptRun | None:
    """Return the split and data record of the run in a folder; None if there is no run."""
    if not (folder / RECIPE).is_file():
        return None
    recipe = read_toml(folder / RECIPE)
    return KeptRun(own_split(recipe, folder), _kept_data(folder, str(recipe.get("data", ""))))


def _kept_data(folder: Path, spec: str) -> KeptData | None:
    """Return the data record of a folder; for older versions without one, a record from the card of the weights."""
    file = folder / DATA
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return KeptData(values["spec"], tuple(values["classes"]), tuple(values["images"]), values["labels"])
    except FileNotFoundError:
        names = load_weights(folder / LAST)[1].class_names if (folder / LAST).is_file() else ()
        return KeptData(spec, names) if names else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read '{file}' ({error}). If the data are unchanged, remove the file to resume"
        ) from error


def going_on_with(source: DataSource, kept: KeptData, recipe: Recipe) -> DataSource:
    """Return the data of a resumed run, with the labels of its classes as before.

    Args:
        source: the data as of now.
        kept: the data record of the run.
        recipe: the settings as of now.

    Raises:
        InputError: the classes differ, or a different source has different images or labels.
    """
    found = matched(source, KnownClasses(len(kept.classes), (kept.classes,)), recipe.match, "match=order")
    if len(source.class_names) < len(kept.classes):
        gone = sorted(set(kept.classes) - set(source.class_names))
        raise InputError(
            f"'{source.spec}' has {len(source.class_names)} of the run's {len(kept.classes)} classes; '{gone[0]}' is "
            "missing. Resume with all classes, or start a new run from the weights with --init-from"
        )
    if recipe.match == ORDER:
        found = replace(found, class_names=source.class_names)
    if kept.labels and not same_source(source.spec, kept.spec) and KeptData.of(found).labels != kept.labels:
        raise InputError(
            f"the run was trained on '{kept.spec}'; '{source.spec}' has different images or labels, so accuracies are "
            "not comparable. Resume with the same data, or start a new run from the weights with --init-from"
        )
    return found
