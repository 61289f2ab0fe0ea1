"""Readers of untrusted files as functions of bytes: each returns a correct result or raises InputError."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import igcv
from igcv.conversion import from_mxnet
from igcv.data import BadImageError, decode
from igcv.data.images import RecordImages
from igcv.data.preprocessing import Preprocessing
from igcv.errors import InputError
from igcv.training import load_recipe, read_metrics
from igcv.training.state import decode as decode_state
from igcv.weights.card import Card
from igcv.weights.foreign.mxnet_files import read_params, read_symbol, write_params

CORPUS = Path(__file__).parent / "corpus"
PLACE = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


class Reader:
    """Reader of one kind of file.

    Args:
        name: name of the file that is read.
        read: function of the path; it raises InputError for unreadable files and AssertionError for wrong results.
        beside: files that must be next to the file: name -> path in the corpus.
    """

    def __init__(
        self, name: str, read: Callable[[Path], object], beside: dict[str, str] | None = None
    ) -> None:
        self.name, self.read, self.beside = name, read, beside or {}

    def __call__(self, data: bytes) -> str:
        """Read a file with the content `data`; return the message of the InputError, or "" without an error."""
        folder = Path(tempfile.mkdtemp(dir=PLACE))
        try:
            (folder / self.name).write_bytes(data)
            for name, source in self.beside.items():
                shutil.copy(CORPUS / source, folder / name)
            self.read(folder / self.name)
        except InputError as error:
            return str(error) or "error without a message"
        finally:
            shutil.rmtree(folder)
        return ""


def _params(path: Path) -> None:
    arrays = read_params(path)
    if all(array.ndim for array in arrays.values()):  # MXNet's newest file format has no scalars
        write_params(path.with_name("again"), arrays)
        again = read_params(path.with_name("again"))
        assert list(again) == list(arrays)
        for key, array in arrays.items():
            never_set = array.size == 0 and array.dtype == "float32"
            assert never_set or (again[key].tobytes(), again[key].shape) == (array.tobytes(), array.shape)
    from_mxnet(path)


def _records(path: Path) -> None:
    images = RecordImages(path)
    for i in range(len(images)):
        try:
            image, label = images[i]
            assert image.mode == "RGB" and label >= 0
            image.load()
        except BadImageError:
            continue


def _recipe(path: Path) -> None:
    recipe = load_recipe(path)
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert asdict(load_recipe(path)) == asdict(recipe)


def _settings(path: Path) -> None:
    recipe = load_recipe(None, path.read_bytes().decode(errors="surrogateescape").split("\n"))
    assert load_recipe(None, [f"seed={recipe.seed}"])


def _card(path: Path) -> None:
    card = Card.from_json(path.read_text(errors="surrogateescape"), path)
    assert Card.from_json(card.to_json(), path).to_json() == card.to_json()
    Preprocessing.from_dict(card.preprocessing)


def _image(path: Path) -> None:
    image = decode(path.read_bytes(), path.name)
    image.load()
    assert image.mode == "RGB"


def _metrics(path: Path) -> None:
    json.dumps(read_metrics(path.parent))


READERS = {
    "params": Reader("net-0000.params", _params),
    "symbol": Reader("net-symbol.json", read_symbol),
    "records": Reader("images.rec", _records),
    "index": Reader(
        "images.idx", lambda path: _records(path.with_suffix(".rec")), {"images.rec": "records/two"}
    ),
    "recipe": Reader("recipe.toml", _recipe),
    "settings": Reader("settings.txt", _settings),
    "card": Reader("card.json", _card),
    "weights": Reader("net.safetensors", lambda path: igcv.load(path)),
    "state": Reader("state.safetensors", decode_state),
    "metrics": Reader("metrics.jsonl", _metrics),
    "image": Reader("image", _image),
}
