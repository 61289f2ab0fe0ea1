"""Photo sets and trainings of the study."""

from dataclasses import dataclass, field

FLOWERS, ANTS = (
    "flower_photos",
    "hymenoptera_data",
)  # folder names of TensorFlow's flowers and PyTorch's ants and bees
KINDS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


@dataclass(frozen=True)
class PhotoSet:
    """A photo set.

    Attributes:
        name: key in the results, and folder name.
        title: name in the tables.
        source: folder of the original photos.
        counts: number of photos per class, the first by name; empty for all.
        minutes: time limit of a training, shorter for the smallest sets.
    """

    name: str
    title: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    minutes: float = 15.0


def _even(photos: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, photos // len(KINDS))


SETS = (
    PhotoSet("flowers", "flowers, five classes", FLOWERS),
    PhotoSet("ants_and_bees", "ants and bees", ANTS),
    PhotoSet(
        "uneven_flowers",
        "flowers, 600 to 30 per class",
        FLOWERS,
        dict(zip(KINDS, (600, 300, 120, 60, 30), strict=True)),
    ),
    PhotoSet("flowers_300", "300 flowers", FLOWERS, _even(300), 5.0),
    PhotoSet("flowers_60", "60 flowers", FLOWERS, _even(60), 2.0),
    PhotoSet("flowers_30", "30 flowers", FLOWERS, _even(30), 2.0),
)

BY_HAND = {  # manual settings of version 0.1.0, the best in its table
    FLOWERS: ["batch_size=32", "lr=0.05", "epochs=40"],
    ANTS: ["batch_size=16", "lr=0.025", "epochs=100"],
}
HAND_RECIPE = [
    *("recipes/cifar_fast.toml", "model=igcv3_d_050", "input_size=64", "ema_decay=0.99"),
    *("preprocessing=imagenet", "augment=inception", "precision=bf16"),
]
TIMM_MODEL = "mobilenetv2_050"  # the smallest network of the family in timm

METHODS = {  # in the order of the table columns
    "scratch": "`igcv train` without a recipe, random weights",
    "start": "the same, released weights",
    "by_hand": "manual settings of igcv 0.1.0, 40 or 100 epochs",
    "timm": f"timm's `train.py`, `{TIMM_MODEL}`, default settings",
}
