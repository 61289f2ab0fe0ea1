"""What a run keeps of its data, so that it continues with the same: the division into parts, classes, and labels."""

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
    """The data of a run, in few words.

    Attributes:
        spec: where they were.
        classes: names in label order.
        images: how many each part has; None for a part that is not there.
        labels: SHA-256 over the labels of all parts, in their order; of a stream over the numbers of images. Empty for
            runs of versions that did not keep it.
    """

    spec: str
    classes: tuple[str, ...]
    images: tuple[int | None, ...] = ()
    labels: str = ""

    @classmethod
    def of(cls, source: DataSource) -> "KeptData":
        """What to keep of a source."""
        parts = [source.train, source.val, source.test]
        digest = hashlib.sha256()
        for name, images in zip(PARTS, parts, strict=True):
            digest.update(f"{name} {'none' if images is None else len(images)} ".encode())
            if images is not None and not isinstance(images, StreamImages):
                digest.update(images.labels.astype("<i8").tobytes())
        counts = tuple(None if images is None else len(images) for images in parts)
        return cls(source.spec, source.class_names, counts, digest.hexdigest())

    def write(self, folder: Path) -> None:
        """Keep it in a run folder."""
        write_file(folder / DATA, (to_json(asdict(self)) + "\n").encode())


@dataclass(frozen=True)
class KeptRun:
    """What a run that goes on keeps of its data: how it is divided, and the rest where the folder says it."""

    split: SplitList | Rule
    data: KeptData | None


def kept_by(folder: Path) -> KeptRun | None:
    """Return what the run in a folder keeps of its data; None if there is no run."""
    if not (folder / RECIPE).is_file():
        return None
    recipe = read_toml(folder / RECIPE)
    return KeptRun(own_split(recipe, folder), _kept_data(folder, str(recipe.get("data", ""))))


def _kept_data(folder: Path, spec: str) -> KeptData | None:
    """What the folder says of the data; of versions that kept no such file, what the card of the weights says."""
    file = folder / DATA
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return KeptData(values["spec"], tuple(values["classes"]), tuple(values["images"]), values["labels"])
    except FileNotFoundError:
        names = load_weights(folder / LAST)[1].class_names if (folder / LAST).is_file() else ()
        return KeptData(spec, names) if names else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); remove it to go on, with data of which you know that they are the same"
        ) from error


def going_on_with(source: DataSource, kept: KeptData, recipe: Recipe) -> DataSource:
    """Return the data of a run that goes on, with the labels that its classes had before.

    Args:
        source: the data as they are now.
        kept: what the run kept of them.
        recipe: its settings as they are now.

    Raises:
        InputError: other classes, or other images in another place.
    """
    found = matched(source, KnownClasses(len(kept.classes), (kept.classes,)), recipe.match, "match=order")
    if len(source.class_names) < len(kept.classes):
        gone = sorted(set(kept.classes) - set(source.class_names))
        raise InputError(
            f"{source.spec} has {len(source.class_names)} of the run's {len(kept.classes)} classes, without {gone[0]}; "
            "resume it with all of them, or start a new run from its weights with --init-from"
        )
    if recipe.match == ORDER:
        found = replace(found, class_names=source.class_names)
    if kept.labels and not same_source(source.spec, kept.spec) and KeptData.of(found).labels != kept.labels:
        raise InputError(
            f"the run was trained on {kept.spec}; {source.spec} has other images or labels, on which its best accuracy "
            "would not compare. Resume it with its own data, or start a new run from its weights with --init-from"
        )
    return found
