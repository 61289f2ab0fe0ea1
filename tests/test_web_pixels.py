"""The page's resizing, run by Node: the same pixels as Pillow and torchvision give, value for value."""

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from igcv.data.preprocessing import CIFAR, IMAGENET, MXNET, Preprocessing, plain_transform, short_side
from igcv.web.writer import PAGE

NODE = shutil.which("node")
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
    """A part of a photograph, or noise, whose sharp edges overshoot, where that is smaller."""
    photo = Image.fromarray(load_sample_images().images[0])
    if width <= photo.width and height <= photo.height and width > 50:
        return photo.crop((0, 0, width, height))
    noise = np.random.default_rng(width).choice([0, 255, 128], (height, width, 3))
    return Image.fromarray(noise.astype(np.uint8))


def run_node(script: Path, *arguments: object) -> str:
    """What a module prints."""
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
        assert np.array_equal(found, expected), f"{size}: {np.abs(found.astype(int) - expected).max()}"


def test_exif_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    photo = picture(60, 40)
    turned = Image.Exif()
    turned[0x112] = 6  # to be turned by a quarter
    files = {"plain.jpg": {}, "turned.jpg": {"exif": turned}, "plain.png": {}, "empty": None, "cut.jpg": None}
    for name, settings in files.items():
        encoded = BytesIO()
        if settings is not None:
            photo.save(encoded, "PNG" if name.endswith("png") else "JPEG", **settings)
        (tmp_path / name).write_bytes(encoded.getvalue())
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:30])
    script = tmp_path / "script.mjs"
    script.write_text(
        f"""
        import {{ readFileSync, writeFileSync }} from "node:fs";
        import {{ withoutExif }} from "{(PAGE / "exif.js").as_uri()}";
        for (const file of process.argv.slice(2)) writeFileSync(`${{file}}.out`, withoutExif(readFileSync(file)));
        """
    )
    run_node(script, *(tmp_path / name for name in files))
    written = {name: (tmp_path / f"{name}.out").read_bytes() for name in files}
    for name in ("plain.jpg", "plain.png", "empty"):
        assert written[name] == (tmp_path / name).read_bytes()
    assert written["turned.jpg"] == written["plain.jpg"]
    assert len(written["cut.jpg"]) <= 30
