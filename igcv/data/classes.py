"""Matching of a data source's classes with a network's classes, by name or by order."""

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
MATCHES = (NAME, ORDER)
SHOWN = 5  # maximum number of classes named in a message


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a network.

    Attributes:
        count: number of classes.
        namings: alternative lists of class names, each in label order; empty for unnamed classes.
    """

    count: int
    namings: tuple[tuple[str, ...], ...] = ()

    def named_as(self, source: DataSource, match: str) -> bool:
        """Return whether to match by name: `match` asks for it, and both sides have names."""
        return match == NAME and source.named and bool(self.namings)

    def labels_of(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Return the labels of some names in the first naming that contains all of them; None if none does."""
        for naming in self.namings:
            numbers = {composed(name): label for label, name in enumerate(naming)}
            labels = [numbers.get(composed(name)) for name in names]
            if None not in labels:
                return tuple(label for label in labels if label is not None)
        return None


def matched(
    source: DataSource, known: KnownClasses, match: str = NAME, by_order: str = "--match order"
) -> DataSource:
    """Return a source with the labels of a network.

    Classes are matched by name, in any order. The source may have only some of the network's classes, but no other
    classes. If the source or the network has no class names, labels are matched by number.

    Args:
        source: the images.
        known: the classes of the network.
        match: "name", or "order" to match class i of the source with class i of the network.
        by_order: the setting that requests a match by order, for the error message.

    Raises:
        InputError: the classes do not match; the message lists the differences.
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
            f"the data has {len(names)} of the network's {known.count} classes; the network predicts all {known.count}"
        )
    if list(labels) != sorted(labels):
        notes.append("classes are matched by name; the data and the network order them differently")
    return relabelled(source, labels, _names(known, names), notes)


def _matched_by_number(source: DataSource, known: KnownClasses, match: str) -> list[str]:
    """Return a note that classes are matched by number; no note if the user asked for it or nothing has names.

    Raises:
        InputError: the source has more classes than the network, or a different number where they must be equal.
    """
    count = len(source.class_names)
    if count > known.count or (count < known.count and (match == ORDER or source.named)):
        raise InputError(
            f"cannot match classes by order: {source.spec} has {count} classes, the network has {known.count}. "
            "Give images of the network's classes"
        )
    if match == ORDER or (not source.named and not known.namings):
        return []
    who = f"{source.spec} has" if not source.named else "the network has"
    return [f"{who} no class names, so classes are matched by number"]


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
    """Return a source with new labels.

    Args:
        source: the images.
        labels: the new label of each class.
        names: the new class names in label order.
        notes: messages to add to the notes of the source.
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
    """Images whose label `i` is replaced by `table[i]`."""

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
