"""Findings of `igcv check`: unreadable images, equal images, small classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from igcv.data import DataSource, Images
from igcv.data.inspection import HASHES, Look, equal_images, nearly_equal
from igcv.errors import some
from igcv.extras import installed
from igcv.terminal import counted
from igcv.training.auto import Choice

FEW_VAL = 5  # validation images per class; with fewer, the class accuracy is uncertain
UNEQUAL = 10.0  # ratio of the largest to the smallest class, in training images, that earns a note
SHOWN = 5  # names in a message


class Place(NamedTuple):
    """Part and label of an image."""

    part: str  # "train", "val" or "test"
    label: int


@dataclass(frozen=True)
class DataCheck:
    """Findings on a data set, and the expected training.

    Attributes:
        data: the source, in the syntax of --data.
        name: name of the data set.
        classes: number of images per class and part: {"cat": {"train": 480, "val": 120}}.
        sizes: smallest, median and largest shorter side in pixels.
        modes: number of images per pixel mode of the files, e.g. {"RGB": 599, "L": 1}.
        unreadable: reasons for unreadable images, by image name.
        equal, nearly_equal: names of pairs of images in two different parts.
        problems: problems to fix before a training, one line each.
        notes: further notes, one line each.
        choices: settings of a training without a recipe, with reasons (see `igcv.training.auto`).
        epoch_s, training_s: expected seconds of an epoch and of the whole training.
    """

    data: str
    name: str
    classes: Mapping[str, Mapping[str, int]]
    sizes: tuple[int, float, int]
    modes: Mapping[str, int]
    unreadable: Mapping[str, str]
    equal: Sequence[tuple[str, str]]
    nearly_equal: Sequence[tuple[str, str]]
    problems: Sequence[str]
    notes: Sequence[str]
    choices: Mapping[str, Choice] = field(default_factory=dict)
    epoch_s: float | None = None
    training_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as a dictionary that can be written as JSON."""
        return {**vars(self), "choices": {key: choice.value for key, choice in self.choices.items()}}


def findings(source: DataSource, parts: Mapping[str, Images], looks: Sequence[Look]) -> DataCheck:
    """Return the findings on the images; `looks` holds those of all parts, in the order of the parts."""
    names = names_of(parts)
    places = [Place(part, label) for part, images in parts.items() for label in images.labels.tolist()]
    classes = {
        name: {part: int((images.labels == label).sum()) for part, images in parts.items()}
        for label, name in enumerate(source.class_names)
    }
    readable = [look for look in looks if not look.error]
    sides = sorted(min(look.size) for look in readable) or [0]
    unreadable = {name: look.error for name, look in zip(names, looks, strict=True) if look.error}
    equal, conflicts = twins(equal_images(looks), places)
    near = nearly_twins(looks, places)
    return DataCheck(
        data=source.spec,
        name=source.name,
        classes=classes,
        sizes=(sides[0], median(sides), sides[-1]),
        modes=dict(Counter(look.mode for look in readable).most_common()),
        unreadable=unreadable,
        equal=[(names[i], names[j]) for i, j in equal],
        nearly_equal=[(names[i], names[j]) for i, j in near],
        problems=[
            *([f"{counted(len(unreadable), 'unreadable image')}: {some(unreadable)}"] if unreadable else []),
            *_twin_problems(equal, conflicts, near, names, places),
            *_class_problems(classes),
        ],
        notes=[*source.notes, *_class_notes(classes), *_missing_notes()],
    )


def names_of(parts: Mapping[str, Images]) -> list[str]:
    """Return the names of the images of all parts; prefix the part if names repeat, as in record files."""
    keys = [(part, images.key(i)) for part, images in parts.items() for i in range(len(images))]
    names = [key for _, key in keys]
    return names if len(set(names)) == len(names) else [f"{part} {key}" for part, key in keys]


def twins(
    groups: Sequence[Sequence[int]], places: Sequence[Place]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the pairs of equal images in different parts, and those in different classes."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    across = [pair for pair in pairs if places[pair[0]].part != places[pair[1]].part]
    conflicts = [pair for pair in pairs if places[pair[0]].label != places[pair[1]].label]
    return across, conflicts


def nearly_twins(looks: Sequence[Look], places: Sequence[Place]) -> list[tuple[int, int]]:
    """Return the pairs of nearly equal images of which one is a training image and the other is not."""
    train = [i for i, place in enumerate(places) if place.part == "train"]
    others = [i for i, place in enumerate(places) if place.part != "train"]
    return nearly_equal(looks, train, others)


def _twin_problems(
    equal: Sequence[tuple[int, int]],
    conflicts: Sequence[tuple[int, int]],
    near: Sequence[tuple[int, int]],
    names: Sequence[str],
    places: Sequence[Place],
) -> list[str]:
    """Return lines about duplicates across parts or classes."""

    def named(pairs: Sequence[tuple[int, int]]) -> str:
        shown = [f"{names[i]} ({places[i].part}) = {names[j]} ({places[j].part})" for i, j in pairs[:SHOWN]]
        return "; ".join([*shown, *([f"and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else [])])

    kinds = (
        (equal, "equal images in two parts (the accuracy is measured on training images)"),
        (near, "nearly equal images in two parts (the accuracy is measured on images like training images)"),
        (conflicts, "equal images in two classes"),
    )
    return [
        f"{len(pairs):,} pair{'s' * (len(pairs) > 1)} of {what}: {named(pairs)}"
        for pairs, what in kinds
        if pairs
    ]


def _class_problems(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return lines about classes without training or validation images."""
    untrained = [name for name, counts in classes.items() if not counts.get("train")]
    unseen = [name for name, counts in classes.items() if not counts.get("val")]
    lines = []
    if untrained:
        lines.append(f"{counted(len(untrained), 'class')} without training images: {some(untrained)}")
    if unseen:
        lines.append(f"{counted(len(unseen), 'class')} without validation images: {some(unseen)}")
    return lines


def _class_notes(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return lines about small classes and about class imbalance."""
    train = [counts.get("train", 0) for counts in classes.values()]
    few = [name for name, counts in classes.items() if 0 < counts.get("val", 0) < FEW_VAL]
    lines = []
    if few:
        lines.append(
            f"{counted(len(few), 'class')} with fewer than {FEW_VAL} validation images (uncertain accuracy): "
            f"{some(few)}"
        )
    if min(train) and max(train) >= UNEQUAL * min(train):
        lines.append(
            f"the largest class has {max(train) / min(train):.0f} times as many training images as the smallest. "
            "class_weights=balanced or sampling=balanced balances the classes; best_by=balanced selects the best epoch "
            "by mean recall"
        )
    return lines


def _missing_notes() -> list[str]:
    return [] if installed(HASHES) else ["no search for nearly equal images: pip install 'igcv[report]'"]
