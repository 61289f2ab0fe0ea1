"""From files to batches: RecordIO files, data sources, augmentation and loaders."""

from igcv.data.augment import (
    AUGMENTS,
    CIFAR,
    IMAGENET,
    MXNET,
    Preprocessing,
    Transform,
    eval_transform,
    train_transform,
)
from igcv.data.images import BadImageError, Images, decode, split_indices
from igcv.data.loaders import Loader, make_loader
from igcv.data.recordio import RecordFile, write_records
from igcv.data.sources import DataSource, open_source
from igcv.data.streams import StreamImages

__all__ = [
    "AUGMENTS",
    "CIFAR",
    "IMAGENET",
    "MXNET",
    "BadImageError",
    "DataSource",
    "Images",
    "Loader",
    "Preprocessing",
    "RecordFile",
    "StreamImages",
    "Transform",
    "decode",
    "eval_transform",
    "make_loader",
    "open_source",
    "split_indices",
    "train_transform",
    "write_records",
]
