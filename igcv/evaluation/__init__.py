"""The accuracy of a network on images, and the images that it gets wrong."""

from igcv.evaluation.accuracy import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
