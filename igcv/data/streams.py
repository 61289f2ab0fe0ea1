"""Streamed images: the iterable data sets of timm (WebDataset shards, Hugging Face, TFDS)."""

import codecs
import logging
import re
import sys
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import EpsImagePlugin, Image, PngImagePlugin
from torch.utils.data import get_worker_info

from igcv.data.decoding import MAX_BYTES, BadImageError, as_rgb
from igcv.errors import InputError

READERS = ("wds", "hfids", "tfds")
_INFO_FILES = ("_info.json", "info.json")
_LOG = "timm.data.readers.reader_wds"


class Sample(NamedTuple):
    """One sample of a stream."""

    image: Image.Image | None  # PIL RGB, or None at the end of the stream
    label: int
    number: int  # index in the stream of this worker
    bad: dict[str, str]  # unreadable samples since the previous readable one: name -> reason


class StreamImages:
    """Labeled images that can only be read sequentially; can be pickled to data-loading workers.

    Every pass opens the data set again, so its samples depend only on its arguments.
    """

    def __init__(self, name: str, root: Path, split: str, download: bool) -> None:
        """Open a split of timm's data set `name`, e.g. "wds/FOLDER"."""
        kind, _, rest = name.partition("/")
        if kind == "wds":
            _check_folder(rest)
        self.dataset, self.split = name, split
        self.root = rest if kind == "wds" else str(root)
        self.download = download and kind != "hfids"  # hfids would store the streamed data
        self.num_classes: int | None = None  # upper bound for the labels, checked while reading
        self.table: np.ndarray | None = None  # the new label of each class; None: labels stay unchanged
        reader = self.reader()
        self._count = int(reader.num_samples)
        self.class_to_idx: dict[str, int] = reader.class_to_idx
        self.info: dict[str, Any] = getattr(reader, "info", {})
        self.shards = [str(Path(rest, file)) for file in reader.split_info.filenames] if kind == "wds" else []
        missing = [shard for shard in self.shards if not Path(shard).is_file()]
        if missing:
            raise InputError(
                f"shard not found: '{missing[0]}'. Correct 'filenames' in the info file of '{rest}'"
            )

    def __len__(self) -> int:
        return self._count

    def reader(self, train: bool = False, seed: int = 0, batch_size: int = 1) -> Any:
        """Create a timm reader; `train` shuffles and rounds up to full batches."""
        import timm.data  # slow to import, needed here only

        return timm.data.create_dataset(
            self.dataset,
            root=self.root,
            split=self.split,
            is_training=train,
            seed=seed,
            batch_size=batch_size,
            download=self.download,
            # TFDS decodes images itself; the other readers return the stored pixels, for `as_rgb`.
            input_img_mode="RGB" if self.dataset.startswith("tfds") else None,
        ).reader

    def samples(
        self, *, train: bool = False, seed: int = 0, batch_size: int = 1, rank: int = 0, world_size: int = 1
    ) -> Generator[Sample]:
        """Yield the samples of one pass for this worker of the process `rank`.

        Training uses timm's shuffling and sharding, padded to full batches. Evaluation reads everything in every
        process and keeps every `world_size`-th sample, because timm's sharding would repeat some samples.

        Raises:
            BadImageError: the stream breaks off.
            InputError: a label is out of range.
        """
        reader = self.reader(train, seed, batch_size)
        worker = get_worker_info()
        reader.dist_rank, reader.dist_num_replicas = (rank, world_size) if train else (0, 1)
        reader.set_loader_cfg(num_workers=worker.num_workers if worker else 1)
        stream = iter(reader)
        with _listening() as bad, _pillow_for_timm():
            number, passed = -1, 0
            refused: dict[str, str] = {}  # samples that timm reads but `as_rgb` refuses
            while True:
                try:
                    image, label = next(stream)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - the readers of several packages raise their own errors
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                    raise BadImageError(
                        f"{self.name(number + 1)}: the stream broke off ({reason}). Repair the data set"
                    ) from None
                number += 1
                self._check_label(int(label), number)
                if train or number % world_size == rank:
                    name = self.name(number)
                    try:
                        image = as_rgb(image, name)
                    except BadImageError as error:
                        refused[name] = str(error)
                        continue
                    passed += len(bad)
                    label = int(label if self.table is None else self.table[label])
                    yield Sample(image, label, number, bad | refused)
                    bad.clear()
                    refused.clear()
            lengths = getattr(reader.split_info, "shard_lengths", ()) if self.shards and not train else ()
            expected = sum(lengths[worker.id :: worker.num_workers] if worker else lengths)
            if number + 1 + passed + len(bad) < expected:  # tarfile reports no error for a truncated shard
                raise BadImageError(
                    f"{self.name(number + 1)}: the shards end here, expected {expected} samples. "
                    "Replace a truncated shard, or correct 'shard_lengths' in the info file"
                )
            yield Sample(None, -1, number + 1, bad | refused)

    def name(self, number: int) -> str:
        """Return the name of a sample in messages."""
        worker = get_worker_info()
        place = f" of worker {worker.id}" if worker and worker.num_workers > 1 else ""
        return f"{self.dataset} {self.split} sample {number}{place}"

    def relabel(self, table: np.ndarray) -> None:
        """Map each label to `table[label]`, on top of earlier calls."""
        self.table = table if self.table is None else table[self.table]

    def highest_label(self) -> int:
        """Return the highest label in the shards, from one pass that does not decode images."""
        highest = -1
        for shard in self.shards:
            with tarfile.open(shard) as tar:
                for member in tar:
                    if member.name.endswith(".cls") and (file := tar.extractfile(member)):
                        highest = max(highest, int(file.read()))
        return highest

    def _check_label(self, label: int, number: int) -> None:
        if self.num_classes is not None and not 0 <= label < self.num_classes:
            raise InputError(
                f"{self.name(number)}: got label {label}, expected 0 to {self.num_classes - 1} "
                f"for {self.num_classes} class names. Correct the labels or the names"
            )


def _check_folder(folder: str) -> None:
    if not Path(folder).is_dir():
        raise InputError(
            f"folder not found: '{folder}'. Give a folder with shards (.tar) and {_INFO_FILES[0]}"
        )
    infos = [info for name in _INFO_FILES if (info := Path(folder, name)).is_file()]
    if infos and infos[0].read_bytes().startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{infos[0]}: starts with a byte order mark, expected plain UTF-8 for timm. Save the file without it"
        )
    if not infos:
        raise InputError(
            f"{folder}: has neither {' nor '.join(_INFO_FILES)}. Write an info file with 'splits', each with name, "
            "num_samples, filenames and shard_lengths"
        )


class _Listener(logging.Handler):
    """Log handler that records the samples skipped by timm's WebDataset reader, which only logs them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.bad: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        _, error, trace = sys.exc_info()
        if error is None:
            return
        name = ""
        while trace and not name:  # one frame of the traceback holds the sample
            sample = trace.tb_frame.f_locals.get("sample")
            name = f"{sample.get('__url__')} {sample.get('__key__')}" if isinstance(sample, dict) else ""
            trace = trace.tb_next
        name = name or str(error)
        why = re.sub(
            r" <\S+ object at 0x\w+>", "", str(error)
        )  # drops the memory address in Pillow's message
        self.bad[name] = f"{name}: not a readable sample ({why}). Replace or remove it"


@contextmanager
def _pillow_for_timm() -> Iterator[None]:
    """Keep Pillow from running Ghostscript and from refusing images with long texts.

    timm opens every format of Pillow, and decoding PostScript would run Ghostscript.
    """
    before = EpsImagePlugin.gs_binary, PngImagePlugin.MAX_TEXT_CHUNK
    EpsImagePlugin.gs_binary, PngImagePlugin.MAX_TEXT_CHUNK = False, MAX_BYTES
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary, PngImagePlugin.MAX_TEXT_CHUNK = before


@contextmanager
def _listening() -> Iterator[dict[str, str]]:
    listener, log = _Listener(), logging.getLogger(_LOG)
    log.addHandler(listener)
    try:
        yield listener.bad
    finally:
        log.removeHandler(listener)
