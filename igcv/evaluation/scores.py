"""Scores per class, computed from a confusion matrix."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from igcv.report.run import images_of

Confusion = Mapping[tuple[int, int], int]  # (class, predicted class): number of images, without zeros


class ClassScores(NamedTuple):
    """Scores of one class in percent; None if undefined.

    Attributes:
        images: number of images of the class.
        recall: percentage of the class's images that are classified as this class; None without images.
        precision: percentage of the images classified as this class that belong to it; None if there are none.
        f1: harmonic mean of recall and precision; None if both are undefined.
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
    """Return the mean recall of the classes that have images, in percent."""
    images = images_of(confusion)
    return sum(100 * confusion.get((label, label), 0) / of for label, of in images.items()) / len(images)


def constant_answer(confusion: Confusion) -> int | None:
    """Return the class whose constant prediction is as good as the network; None if the network is better.

    A network is no better if it predicts only one class, or if its top-1 accuracy is at most the share of the largest
    class. The result is None if all images belong to one class.
    """
    images, answers = images_of(confusion), answers_of(confusion)
    if len(images) < 2:
        return None
    if len(answers) == 1:
        return next(iter(answers))
    largest = max(images, key=lambda label: (images[label], -label))
    return largest if right_of(confusion) <= images[largest] else None


def constant_note(confusion: Confusion, names: Sequence[str]) -> str:
    """Return a line that says that a network is no better than a constant prediction; empty if it is better."""
    answer = constant_answer(confusion)
    if answer is None:
        return ""
    images = images_of(confusion)
    top1, share = (100 * count / images.total() for count in (right_of(confusion), images[answer]))
    return (
        f"no better than always predicting '{names[answer]}': top-1 {top1:.2f} %, and {share:.2f} % of the validation "
        f"images are of this class (balanced accuracy {balanced_accuracy(confusion):.2f} %)"
    )


def answers_of(confusion: Confusion) -> Counter[int]:
    """Count the predictions of each class."""
    answers: Counter[int] = Counter()
    for (_, answer), count in confusion.items():
        answers[answer] += count
    return answers


def right_of(confusion: Confusion) -> int:
    """Return the number of correctly classified images."""
    return sum(count for (label, answer), count in confusion.items() if label == answer)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
