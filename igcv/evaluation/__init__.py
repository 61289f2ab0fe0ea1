"""Evaluation of networks: accuracy, misclassified images, and predictions for many images."""

from igcv.evaluation.accuracy import Evaluation, evaluate
from igcv.evaluation.outputs import sort_into, write_table
from igcv.evaluation.predictions import ImagePrediction, predict, predict_in_batches

__all__ = [
    "Evaluation",
    "ImagePrediction",
    "evaluate",
    "predict",
    "predict_in_batches",
    "sort_into",
    "write_table",
]
