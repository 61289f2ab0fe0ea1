"""Initial files of the corpus: a small file of every kind that igcv reads, as igcv, MXNet and Pillow write it."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from igcv.conversion import to_mxnet
from igcv.data import write_records
from igcv.data.preprocessing import IMAGENET
from igcv.models import build_model
from igcv.training import find_recipe, load_recipe
from igcv.training.state import EpochProgress, State, encode
from igcv.weights import save_weights
from igcv.weights.card import Card
from igcv.weights.foreign.mxnet_files import write_params


def digit(kind: str, mode: str = "L", **options: object) -> bytes:
    """Return a handwritten digit of 8 x 8 pixels as an image file of the format `kind`."""
    file = BytesIO()
    image = Image.fromarray((load_digits().images[3] * 15.9).astype("uint8")).convert(mode)
    image.save(file, kind, **options)
    return file.getvalue()


def write_seeds(root: Path) -> None:
    """Write the initial files, one folder per reader (see studies.soak.readers)."""
    for name in ("params", "symbol", "records", "recipe", "settings", "card", "weights", "state", "metrics"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("index", "image"):
        (root / name).mkdir(parents=True, exist_ok=True)
    network = build_model("igcv1_l1m1_d5", 2, input_size=8)
    pre = IMAGENET.to_dict() | {"input_size": 8}
    card = Card(
        model="igcv1_l1m1_d5",
        num_classes=2,
        input_size=8,
        strides=network.strides,
        class_names=("a", "b"),
        preprocessing=pre,
    )
    save_weights(root / "weights" / "small", network.state_dict(), card)
    (root / "card" / "small").write_text(card.to_json())
    to_mxnet(root / "weights" / "small", root / "params" / "network")
    state = State(
        1, 50.0, 8, (EpochProgress(2, 1.5, 16, 0.1),), {"a.png": "broken"}, {"model.w": torch.ones(2)}
    )
    (root / "state" / "small").write_bytes(encode(state))
    arrays = {
        "arg:fc_weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "aux:bn_moving_mean": np.zeros(2, np.float16),
        "arg:n": np.ones(1, np.int64),
    }
    write_params(root / "params" / "small", arrays)
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "c_weight", "attrs": {"__shape__": "(8, 3, 3, 3)"}, "inputs": []},
        {
            "op": "Convolution",
            "name": "c",
            "attrs": {"kernel": "(3, 3)", "num_filter": "8"},
            "inputs": [[0, 0, 0], [1, 0, 0]],
        },
    ]
    graph = {
        "nodes": nodes,
        "arg_nodes": [0, 1],
        "heads": [[2, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    (root / "symbol" / "small").write_text(json.dumps(graph))
    records = root / "records" / "two"
    write_records(records, [(1.0, digit("PNG")), ((2.0, 3.0), digit("JPEG"))])
    records.with_suffix(".idx").rename(root / "index" / "two")
    for name in ("cifar_fast", "imagenet_mxnet"):
        (root / "recipe" / name).write_text(load_recipe(find_recipe(f"{name}.toml")).to_toml())
    (root / "settings" / "some").write_text("epochs=3\nlr=0.1\nlr_step_epochs=[1, 2]\nmodel=igcv3_d_050")
    (root / "metrics" / "two").write_text(
        '{"epoch": 1, "train_loss": 0.5}\n{"epoch": 2, "train_loss": 0.25}\n'
    )
    kinds = {"png": ("PNG", "L"), "palette": ("PNG", "P"), "jpeg": ("JPEG", "RGB"), "cmyk": ("JPEG", "CMYK")}
    kinds |= {"deep": ("PNG", "I;16"), "webp": ("WEBP", "RGB"), "bmp": ("BMP", "RGB"), "gif": ("GIF", "P")}
    for name, (kind, mode) in kinds.items():
        (root / "image" / name).write_bytes(digit(kind, mode))
