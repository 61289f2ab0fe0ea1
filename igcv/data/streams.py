"""Images that come as a stream: the iterable data sets of timm (WebDataset shards, Hugging Face, TFDS)."""

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
    """What a stream gives next."""

    image: Image.Image | None  # PIL RGB, or None at the end of the stream
    label: int
    number: int  # in the stream of this loader process
    bad: dict[str, str]  # unreadable samples since the last one: name -> reason


class StreamImages:
    """Labelled images that can only be read one after the other; can be pickled to loader processes.

    Every pass opens the data set again, so that what it gives follows from its arguments only.
    """

    def __init__(self, name: str, root: Path, split: str, download: bool) -> None:
        """Open a split of timm's data set `name`, e.g. "wds/FOLDER"."""
        kind, _, rest = name.partition("/")
        if kind == "wds":
            _check_folder(rest)
        self.dataset, self.split = name, split
        self.root = rest if kind == "wds" else str(root)
        self.download = download and kind != "hfids"  # that would store what is to be streamed
        self.num_classes: int | None = None  # labels are checked against it on the way
        self.table: np.ndarray | None = None  # the new label of each class; None: as they are
        reader = self.reader()
        self._count = int(reader.num_samples)
        self.class_to_idx: dict[str, int] = reader.class_to_idx
        self.info: dict[str, Any] = getattr(reader, "info", {})
        self.shards = [str(Path(rest, file)) for file in reader.split_info.filenames] if kind == "wds" else []
        missing = [shard for shard in self.shards if not Path(shard).is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such shard; correct 'filenames' in the info file of {rest}")

    def __len__(self) -> int:
        return self._count

    def reader(self, train: bool = False, seed: int = 0, batch_size: int = 1) -> Any:
        """A new reader of timm; `train` shuffles and rounds up to full batches."""
        import timm.data  # slow to import, needed here only

        return timm.data.create_dataset(
            self.dataset,
            root=self.root,
            split=self.split,
            is_training=train,
            seed=seed,
            batch_size=batch_size,
            download=self.download,
            # TensorFlow decodes for itself; of the others the pixels come as they are stored, for `as_rgb`.
            input_img_mode="RGB" if self.dataset.startswith("tfds") else None,
        ).reader

    def samples(
        self, *, train: bool = False, seed: int = 0, batch_size: int = 1, rank: int = 0, world_size: int = 1
    ) -> Generator[Sample]:
        """The samples of one pass for this loader process of the process `rank`.

        Training: timm's shuffling and its share of the shards, filled up to full batches. Otherwise every process
        reads everything and keeps each `world_size`-th sample, as timm's sharing would repeat some.

        Raises:
            BadImageError: the stream breaks off.
            InputError: a label that is out of range.
        """
        reader = self.reader(train, seed, batch_size)
        worker = get_worker_info()
        reader.dist_rank, reader.dist_num_replicas = (rank, world_size) if train else (0, 1)
        reader.set_loader_cfg(num_workers=worker.num_workers if worker else 1)
        stream = iter(reader)
        with _listening() as bad, _pillow_for_timm():
            number, passed = -1, 0
            refused: dict[str, str] = {}  # of the samples that timm gives, those that are no images for us
            while True:
                try:
                    image, label = next(stream)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - readers of several packages, with errors of their own
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                    raise BadImageError(
                        f"{self.name(number + 1)}: the stream cannot be read on ({reason}); repair the data set"
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
            if number + 1 + passed + len(bad) < expected:  # tarfile takes a cut shard for a whole one
                raise BadImageError(
                    f"{self.name(number + 1)}: the shards end here, expected {expected} samples; "
                    "a shard is cut short, or 'shard_lengths' in the info file are wrong"
                )
            yield Sample(None, -1, number + 1, bad | refused)

    def name(self, number: int) -> str:
        """What messages call a sample."""
        worker = get_worker_info()
        place = f" of worker {worker.id}" if worker and worker.num_workers > 1 else ""
        return f"{self.dataset} {self.split} sample {number}{place}"

    def relabel(self, table: np.ndarray) -> None:
        """Give each class another label, `table[label]`, after those that it has been given."""
        self.table = table if self.table is None else table[self.table]

    def highest_label(self) -> int:
        """The highest label in the shards, from one pass over them; images are skipped, not decoded."""
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
                f"{self.name(number)}: the label is {label}, expected 0 to {self.num_classes - 1} "
                f"for {self.num_classes} class names; correct the labels or the names"
            )


def _check_folder(folder: str) -> None:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder, expected one with shards (.tar) and {_INFO_FILES[0]}")
    infos = [info for name in _INFO_FILES if (info := Path(folder, name)).is_file()]
    if infos and infos[0].read_bytes().startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{infos[0]}: starts with a byte order mark, expected plain UTF-8 for timm. Save it without"
        )
    if not infos:
        raise InputError(
            f"{folder}: has neither {' nor '.join(_INFO_FILES)}; write one that gives the 'splits' with name, "
            "num_samples, filenames and shard_lengths"
        )


class _Listener(logging.Handler):
    """Notes the samples that timm's WebDataset reader passes over; its log is the only place that tells."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.bad: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        _, error, trace = sys.exc_info()
        if error is None:
            return
        name = ""
        while trace and not name:  # the sample is known where the error went by
            sample = trace.tb_frame.f_locals.get("sample")
            name = f"{sample.get('__url__')} {sample.get('__key__')}" if isinstance(sample, dict) else ""
            trace = trace.tb_next
        name = name or str(error)
        why = re.sub(
            r" <\S+ object at 0x\w+>", "", str(error)
        )  # Pillow names the bytes by their place in memory
        self.bad[name] = f"{name}: no readable sample ({why}); replace or remove it"


@contextmanager
def _pillow_for_timm() -> Iterator[None]:
    """Let Pillow start no program and refuse no image for the length of its text.

    timm opens all formats that Pillow knows, of which PostScript would run a program.
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
