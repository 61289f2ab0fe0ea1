"""The sets of photos and the trainings of the study."""

from dataclasses import dataclass, field

FLOWERS, ANTS = (
    "flower_photos",
    "hymenoptera_data",
)  # folders of TensorFlow's flowers and PyTorch's ants and bees
KINDS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


@dataclass(frozen=True)
class PhotoSet:
    """Some photos to learn from.

    Attributes:
        name: what the table calls it, and its folder.
        title: the same for people.
        source: folder of photos that it is cut from.
        counts: photos of each class, the first by name; empty for all.
        minutes: of a training, at most; fewer than usual where a handful of photos needs no more.
    """

    name: str
    title: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    minutes: float = 15.0


def _even(photos: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, photos // len(KINDS))


SETS = (
    PhotoSet("flowers", "flowers, five kinds", FLOWERS),
    PhotoSet("ants_and_bees", "ants and bees", ANTS),
    PhotoSet(
        "uneven_flowers",
        "flowers, 600 to 30 of a kind",
        FLOWERS,
        dict(zip(KINDS, (600, 300, 120, 60, 30), strict=True)),
    ),
    PhotoSet("flowers_300", "300 flowers", FLOWERS, _even(300), 5.0),
    PhotoSet("flowers_60", "60 flowers", FLOWERS, _even(60), 2.0),
    PhotoSet("flowers_30", "30 flowers", FLOWERS, _even(30), 2.0),
)

BY_HAND = {  # settings that were chosen by hand for version 0.1.0, whose table they led
    FLOWERS: ["batch_size=32", "lr=0.05", "epochs=40"],
    ANTS: ["batch_size=16", "lr=0.025", "epochs=100"],
}
HAND_RECIPE = [
    *("recipes/cifar_fast.toml", "model=igcv3_d_050", "input_size=64", "ema_decay=0.99"),
    *("preprocessing=imagenet", "augment=inception", "precision=bf16"),
]
TIMM_MODEL = "mobilenetv2_050"  # the smallest of the family that timm has

METHODS = {  # in the order of the table's columns
    "scratch": "`igcv train --data folder:…`, from random weights",
    "start": "the same, from the weights at hand",
    "by_hand": "settings of 0.1.0, by hand, 40 and 100 epochs",
    "timm": f"timm's `train.py`, {TIMM_MODEL}, its defaults",
}
