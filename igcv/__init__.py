"""Interleaved group convolution networks (IGCV1, IGCV2, IGCV3) in PyTorch: train, evaluate, convert, deploy.

>>> import igcv
>>> igcv.create_model("igcv3_d_100", num_classes=10).reduction
32
"""

from igcv.classifier import Classifier, Prediction, load
from igcv.deploy import fold
from igcv.errors import InputError
from igcv.models import list_models, set_form
from igcv.mxnet import from_mxnet
from igcv.pretrained import create_model
from igcv.version import __version__

__all__ = [
    "Classifier",
    "InputError",
    "Prediction",
    "__version__",
    "create_model",
    "fold",
    "from_mxnet",
    "list_models",
    "load",
    "set_form",
]
