"""The resizing of the web page, run in Node: the same pixel values as Pillow and torchvision."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from igcv.data.preprocessing import CIFAR, IMAGENET, MXNET, Preprocessing, plain_transform, short_side
from igcv.web.writer import PAGE
from tests.browser import PILLOW

NODE = shutil.which("node")
ROUNDING = 1 if PILLOW < 13 else 0  # levels of 255
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node, which is not on the path")
SIZES = [
    (640, 427),
    (427, 640),
    (300, 300),
    (33, 57),
    (57, 33),
    (16, 16),
    (8, 8),
    (1, 1),
    (3, 200),
    (30, 61),
    (90, 270),
    (30, 60),
    (1000, 37),
]
NETWORKS = {
    "imagenet": IMAGENET,
    "mxnet": MXNET,
    "cifar": CIFAR,
    "nearest": Preprocessing(30, CIFAR.mean, CIFAR.std, 0.9, "nearest"),
    "lanczos": Preprocessing(97, CIFAR.mean, CIFAR.std, 0.875, "lanczos"),
    "odd": Preprocessing(21, CIFAR.mean, CIFAR.std, 0.77, "bilinear"),
    "one": Preprocessing(1, CIFAR.mean, CIFAR.std, 1.0, "bicubic"),
}


def picture(width: int, height: int) -> Image.Image:
    """Return a crop of a photograph, or noise (whose sharp edges overshoot) for narrow or large sizes."""
    photo = Image.fromarray(load_sample_images().images[0])
    if width <= photo.width and height <= photo.height and width > 50:
        return photo.crop((0, 0, width, height))
    noise = np.random.default_rng(width).choice([0, 255, 128], (height, width, 3))
    return Image.fromarray(noise.astype(np.uint8))


def run_node(script: Path, *arguments: object) -> str:
    """Return the output of a Node module."""
    ended = subprocess.run([str(NODE), script, *map(str, arguments)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_pixels_as_predict(network: str, tmp_path: Path) -> None:
    pre = NETWORKS[network]
    images = []
    for i, (width, height) in enumerate(SIZES):
        (tmp_path / f"{i}.rgba").write_bytes(picture(width, height).convert("RGBA").tobytes())
        images.append(
            {
                "name": str(i),
                "width": width,
                "height": height,
                "preprocessing": {**pre.to_dict(), "short_side": short_side(pre)},
            }
        )
    (tmp_path / "images.json").write_text(json.dumps(images))
    run_node(Path(__file__).with_name("run_resize.mjs"), PAGE, tmp_path)
    for i, size in enumerate(SIZES):
        found = np.frombuffer((tmp_path / f"{i}.rgb").read_bytes(), np.uint8)
        expected = plain_transform(pre)(picture(*size)).permute(1, 2, 0).numpy().ravel()
        difference = np.abs(found.astype(int) - expected).max()
        assert difference <= ROUNDING, f"{size}: {difference}"
