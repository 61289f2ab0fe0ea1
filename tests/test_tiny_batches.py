"""Tests of micro-batches of one image: an error if batch norm cannot work with them, else a training."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import igcv
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training.draft import Draft
from igcv.training.job import resolve

CPU = torch.device("cpu")
TINY = {
    "model": "igcv3_w_010",
    "epochs": 1,
    "workers": 0,
    "precision": "float32",
    "strides": (2, 2, 2, 1, 1, 1, 1, 1),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two classes and three training images of 16 x 16 pixels."""
    root = tmp_path_factory.mktemp("photos")
    for part, name, count in (("train", "a", 2), ("train", "b", 1), ("val", "a", 1), ("val", "b", 1)):
        (root / part / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (40 * i, 80, 120)).save(root / part / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "settings, processes, message",
    [
        ({"batch_size": 1}, 1, "batch_size = 1 with accumulation = 1, 1 process(es) and 3 training images"),
        ({"batch_size": 2, "accumulation": 2}, 1, "batch_size = 2 with accumulation = 2"),
        ({"batch_size": 2}, 2, "accumulation = 1, 2 process(es)"),
        ({"batch_size": 4}, 2, "2 process(es) and 3 training images"),
        (
            {
                "batch_size": 1,
                "progressive_sizes": (8,),
                "progressive_epochs": (1,),
                "epochs": 2,
                "input_size": 16,
            },
            1,
            "The last layers reduce 8 x 8 pixels to one",
        ),
    ],
)
def test_refused(settings: dict[str, object], processes: int, message: str, photos: Path) -> None:
    draft = Draft({"data": f"folder:{photos}", "input_size": 8, **TINY, **settings})
    with pytest.raises(InputError) as error:
        resolve(draft, Process(CPU, 0, processes))
    assert message in str(error.value) and "Give at least two images per process" in str(error.value)


def test_trained_where_an_image_leaves_more_than_a_pixel(photos: Path, tmp_path: Path) -> None:
    """The limit is that of torch: larger images can train in batches of one image."""
    run = igcv.train(
        out=tmp_path / "run",
        data=f"folder:{photos}",
        device="cpu",
        quiet=True,
        input_size=16,
        batch_size=1,
        **TINY,
    )
    assert run.summary["epochs"] == 1


def test_the_line_is_where_torch_draws_it() -> None:
    network = igcv.create_model("igcv3_w_010", 2, input_size=8, strides=TINY["strides"]).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.zeros(1, 3, 8, 8))
    network(torch.zeros(1, 3, 9, 9))
    network(torch.zeros(2, 3, 8, 8))
