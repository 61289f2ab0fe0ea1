"""The classes of images matched with those that a network knows: by name, or by order where that is asked for."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from igcv.data.images import Images
from igcv.data.sources.listed import composed
from igcv.data.sources.open import DataSource
from igcv.data.streams import StreamImages
from igcv.errors import InputError, differences, unknown

NAME, ORDER = "name", "order"
MATCHES = (NAME, ORDER)  # how classes can be matched
SHOWN = 5  # classes named in a message


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a network.

    Attributes:
        count: how many there are.
        namings: their names in label order, a list for each name that a class has; empty if they have none.
    """

    count: int
    namings: tuple[tuple[str, ...], ...] = ()

    def named_as(self, source: DataSource, match: str) -> bool:
        """Whether the classes of a source are matched by name: that is asked for, and both sides have names."""
        return match == NAME and source.named and bool(self.namings)

    def labels_of(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Return the label of each of some names in the first naming that has them all; None if none has."""
        for naming in self.namings:
            numbers = {composed(name): label for label, name in enumerate(naming)}
            labels = [numbers.get(composed(name)) for name in names]
            if None not in labels:
                return tuple(label for label in labels if label is not None)
        return None


def matched(
    source: DataSource, known: KnownClasses, match: str = NAME, by_order: str = "--match order"
) -> DataSource:
    """Return a source whose labels are those of a network.

    By name, in whatever order, and of fewer classes than the network's where the source has no others. Where the source
    or the network has no class names, their labels count as the same.

    Args:
        source: the images.
        known: the classes of the network.
        match: "name", or "order" to take the first class of the source for the first of the network, and so on.
        by_order: how the user can ask for that.

    Raises:
        InputError: the classes do not match, with both sides listed.
    """
    if match not in MATCHES:
        raise unknown("way to match classes", match, MATCHES)
    names = source.class_names
    if not known.named_as(source, match):
        note = _matched_by_number(source, known, match)
        return replace(source, class_names=_names(known, names), notes=(*source.notes, *note))
    labels = known.labels_of(names)
    if labels is None:
        raise InputError(
            f"{source.spec} and the network have different classes ({_apart(names, known.namings[0])}). Rename the "
            f"classes of the data, or give {by_order} if both have the same classes in the same order"
        )
    notes = []
    if len(names) < known.count:
        notes.append(
            f"the images are of {len(names)} of the network's {known.count} classes; it chooses among all of them"
        )
    if list(labels) != sorted(labels):
        notes.append("classes are matched by name; their order is not the network's")
    return relabelled(source, labels, _names(known, names), notes)


def _matched_by_number(source: DataSource, known: KnownClasses, match: str) -> list[str]:
    """Return the line that says that labels count as they are; none where that was asked for.

    Raises:
        InputError: there are not as many classes, or more than the network has.
    """
    count = len(source.class_names)
    if count > known.count or (count < known.count and (match == ORDER or source.named)):
        raise InputError(
            f"{source.spec} has {count} classes, the network {known.count}, so that they cannot be matched by order. "
            "Give images of the network's classes"
        )
    if match == ORDER or (not source.named and not known.namings):
        return []
    who = f"{source.spec} has" if not source.named else "the network has"
    return [f"{who} no class names, so classes are matched by their numbers"]


def _names(known: KnownClasses, names: Sequence[str]) -> tuple[str, ...]:
    return known.namings[0] if known.namings else tuple(names)


def _apart(names: Sequence[str], known: Sequence[str]) -> str:
    ours, theirs = ({composed(name) for name in some} for some in (names, known))
    only = {
        "only in the data": [name for name in names if composed(name) not in theirs],
        "only in the network": [name for name in known if composed(name) not in ours],
    }
    return differences(only, SHOWN)


def relabelled(
    source: DataSource, labels: Sequence[int], names: Sequence[str], notes: Sequence[str] = ()
) -> DataSource:
    """Return a source with other labels.

    Args:
        source: the images.
        labels: the new label of each class.
        names: of the new classes in label order.
        notes: what to say about it, added to the notes of the source.
    """
    source = replace(source, class_names=tuple(names), notes=(*source.notes, *notes))
    if list(labels) == list(range(len(labels))):
        return source
    parts = (source.train, source.val, source.test)
    train, val, test = (_relabelled(images, np.asarray(labels, np.int64)) for images in parts)
    return replace(source, train=train, val=val, test=test)


def _relabelled(images: Images | StreamImages | None, labels: np.ndarray) -> Images | StreamImages | None:
    if images is None:
        return None
    if isinstance(images, StreamImages):
        images = copy(images)
        images.relabel(labels)
        return images
    return RelabelledImages(images, labels)


class RelabelledImages:
    """Images whose class `i` is called `table[i]`."""

    def __init__(self, images: Images, table: np.ndarray) -> None:
        self.images, self.labels = images, table[images.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        image, _ = self.images[i]
        return image, int(self.labels[i])

    def name(self, i: int) -> str:
        return self.images.name(i)

    def key(self, i: int) -> str:
        return self.images.key(i)
