"""Data sources, RecordIO files, image decoding, augmentation and loaders."""

from igcv.data.augment import AUGMENTS, BATCHED, Moves, train_transform
from igcv.data.decoding import BadImageError, as_rgb, decode, read_image
from igcv.data.finish import Finish, as_pixels
from igcv.data.images import Images, split_indices
from igcv.data.items import LoaderSettings
from igcv.data.loaders import Loader, make_loader
from igcv.data.preprocessing import (
    CIFAR,
    IMAGENET,
    MXNET,
    Preprocessing,
    Transform,
    eval_transform,
    plain_transform,
)
from igcv.data.recordio import RecordFile, write_records
from igcv.data.sources.open import DataSource, open_source
from igcv.data.streams import StreamImages

__all__ = [
    "AUGMENTS",
    "BATCHED",
    "CIFAR",
    "IMAGENET",
    "MXNET",
    "BadImageError",
    "DataSource",
    "Finish",
    "Images",
    "Loader",
    "LoaderSettings",
    "Moves",
    "Preprocessing",
    "RecordFile",
    "StreamImages",
    "Transform",
    "as_pixels",
    "as_rgb",
    "decode",
    "eval_transform",
    "make_loader",
    "open_source",
    "plain_transform",
    "read_image",
    "split_indices",
    "train_transform",
    "write_records",
]
