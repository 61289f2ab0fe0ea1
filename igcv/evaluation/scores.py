"""Scores of the classes, from how often which class is taken for which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from igcv.report.run import images_of

Confusion = Mapping[tuple[int, int], int]  # (class, most probable class): images, where there are any


class ClassScores(NamedTuple):
    """How well one class is recognized, in percent; None where nothing can be said.

    Attributes:
        images: of the class.
        recall: share of its images that are classified as this class; None without images.
        precision: share of the images classified as this class that are of it; None if there are none.
        f1: harmonic mean of the two; None without either.
    """

    images: int
    recall: float | None
    precision: float | None
    f1: float | None


def class_scores(confusion: Confusion, classes: int) -> list[ClassScores]:
    """Return the scores of each class, in label order."""
    images, answers = images_of(confusion), answers_of(confusion)
    found = []
    for label in range(classes):
        right, of, answered = confusion.get((label, label), 0), images[label], answers[label]
        found.append(
            ClassScores(
                of, _percent(right, of), _percent(right, answered), _percent(2 * right, of + answered)
            )
        )
    return found


def balanced_accuracy(confusion: Confusion) -> float:
    """Return the mean recall of the classes that have images, percent."""
    images = images_of(confusion)
    return sum(100 * confusion.get((label, label), 0) / of for label, of in images.items()) / len(images)


def constant_answer(confusion: Confusion) -> int | None:
    """Return the class that it would be as good to answer always; None where the network is better.

    A network is no better if it answers one class only, or if its top-1 accuracy is at most the share of the largest
    class. Where the images are all of one class, nothing can be said.
    """
    images, answers = images_of(confusion), answers_of(confusion)
    if len(images) < 2:
        return None
    if len(answers) == 1:
        return next(iter(answers))
    largest = max(images, key=lambda label: (images[label], -label))
    return largest if right_of(confusion) <= images[largest] else None


def constant_note(confusion: Confusion, names: Sequence[str]) -> str:
    """Return one line that says a network is no better than always answering one class; empty if it is better."""
    answer = constant_answer(confusion)
    if answer is None:
        return ""
    images = images_of(confusion)
    top1, share = (100 * count / images.total() for count in (right_of(confusion), images[answer]))
    return (
        f"no better than always answering '{names[answer]}': top-1 {top1:.2f} %, and {share:.2f} % of the validation "
        f"images are of this class (balanced accuracy {balanced_accuracy(confusion):.2f} %)"
    )


def answers_of(confusion: Confusion) -> Counter[int]:
    """Return how often each class is the answer."""
    answers: Counter[int] = Counter()
    for (_, answer), count in confusion.items():
        answers[answer] += count
    return answers


def right_of(confusion: Confusion) -> int:
    """Return how many images are classified as their own class."""
    return sum(count for (label, answer), count in confusion.items() if label == answer)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
