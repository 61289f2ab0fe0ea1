"""What the images of a data set tell before a training: unreadable and equal ones, small classes."""

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

FEW_VAL = 5  # validation images of a class, below which its accuracy says little
UNEQUAL = 10.0  # times as many training images in the largest class as in the smallest are worth a word
SHOWN = 5  # names in a message


class Place(NamedTuple):
    """Where an image stands."""

    part: str  # "train", "val" or "test"
    label: int


@dataclass(frozen=True)
class DataCheck:
    """What a data set holds, and what a training would make of it.

    Attributes:
        data: the source, as --data takes it.
        name: what it is called.
        classes: images of each class in each part: {"cat": {"train": 480, "val": 120}}.
        sizes: smallest, median and largest shorter side in pixels.
        modes: images by how their files store pixels, e.g. {"RGB": 599, "L": 1}.
        unreadable: why images cannot be read, by their names.
        equal, nearly_equal: names of pairs of images, one in each of two parts.
        problems: what needs fixing before a training, a line each.
        notes: what is good to know, a line each.
        choices: the settings of a training without a recipe, with reasons (see `igcv.training.auto`).
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
        """The same under plain names, ready for JSON."""
        return {**vars(self), "choices": {key: choice.value for key, choice in self.choices.items()}}


def findings(source: DataSource, parts: Mapping[str, Images], looks: Sequence[Look]) -> DataCheck:
    """What the images themselves tell; `looks` are of all parts, one after the other."""
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
            *(
                [f"{counted(len(unreadable), 'image')} cannot be read: {some(unreadable)}"]
                if unreadable
                else []
            ),
            *_twin_problems(equal, conflicts, near, names, places),
            *_class_problems(classes),
        ],
        notes=[*source.notes, *_class_notes(classes), *_missing_notes()],
    )


def names_of(parts: Mapping[str, Images]) -> list[str]:
    """Return the names of the images of all parts; with the part where two images would have one name, as records."""
    keys = [(part, images.key(i)) for part, images in parts.items() for i in range(len(images))]
    names = [key for _, key in keys]
    return names if len(set(names)) == len(names) else [f"{part} {key}" for part, key in keys]


def twins(
    groups: Sequence[Sequence[int]], places: Sequence[Place]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of equal images in two parts, and pairs in two classes."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    across = [pair for pair in pairs if places[pair[0]].part != places[pair[1]].part]
    conflicts = [pair for pair in pairs if places[pair[0]].label != places[pair[1]].label]
    return across, conflicts


def nearly_twins(looks: Sequence[Look], places: Sequence[Place]) -> list[tuple[int, int]]:
    """Return pairs of nearly equal images, one of which trains while the other does not."""
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
    """Lines on images that are there twice where they should not be."""

    def named(pairs: Sequence[tuple[int, int]]) -> str:
        shown = [f"{names[i]} ({places[i].part}) = {names[j]} ({places[j].part})" for i, j in pairs[:SHOWN]]
        return "; ".join([*shown, *([f"and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else [])])

    kinds = (
        (equal, "equal images are in two parts, so that accuracy is measured on training images"),
        (
            near,
            "nearly equal images are in two parts, so that accuracy is measured on images like those of training",
        ),
        (conflicts, "equal images are in two classes"),
    )
    return [
        f"{len(pairs):,} pair{'s' * (len(pairs) > 1)} of {what}: {named(pairs)}"
        for pairs, what in kinds
        if pairs
    ]


def _class_problems(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lines on classes that cannot be trained, or whose accuracy cannot be measured."""
    untrained = [name for name, counts in classes.items() if not counts.get("train")]
    unseen = [name for name, counts in classes.items() if not counts.get("val")]
    lines = []
    if untrained:
        lines.append(f"{counted(len(untrained), 'class')} without training images: {some(untrained)}")
    if unseen:
        lines.append(f"{counted(len(unseen), 'class')} without validation images: {some(unseen)}")
    return lines


def _class_notes(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lines on classes that are small, or much smaller than others."""
    train = [counts.get("train", 0) for counts in classes.values()]
    few = [name for name, counts in classes.items() if 0 < counts.get("val", 0) < FEW_VAL]
    lines = []
    if few:
        lines.append(
            f"{counted(len(few), 'class')} with fewer than {FEW_VAL} validation images, whose accuracy is uncertain: "
            f"{some(few)}"
        )
    if min(train) and max(train) >= UNEQUAL * min(train):
        lines.append(
            f"the largest class has {max(train) / min(train):.0f} times the training images of the smallest; "
            "class_weights=balanced or sampling=balanced makes all classes count equally, best_by=balanced picks the "
            "epoch by their mean recall"
        )
    return lines


def _missing_notes() -> list[str]:
    return [] if installed(HASHES) else ["nearly equal images are not looked for: pip install 'igcv[report]'"]
