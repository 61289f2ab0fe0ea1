"""What is trained: the rows of the comparison table, and the variants among which its recipe is chosen."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

RECIPE = "recipes/cifar_table.toml"
SEEDS = (0, 1, 2)


class Published(NamedTuple):
    """An accuracy of the IGCV3 paper in percent: mean and standard deviation of five runs."""

    mean: float
    deviation: float


class Row(NamedTuple):
    """A network of the comparison table.

    Attributes:
        label: name in the papers.
        model: name in the catalog.
        published: accuracy by data set in the IGCV3 paper (arXiv:1806.00178, tables 1 and 2).
        published_parameters: in millions, in the repository of the paper. The paper counts without the classifier.
        by_others: accuracy in percent by data set in an independent reproduction (arXiv:1905.03672, tables 3 and 4).
    """

    label: str
    model: str
    published: Mapping[str, Published] = MappingProxyType({})
    published_parameters: float | None = None
    by_others: Mapping[str, float] = MappingProxyType({})


def _published(cifar10: tuple[float, float], cifar100: tuple[float, float]) -> dict[str, Published]:
    return {"cifar10": Published(*cifar10), "cifar100": Published(*cifar100)}


NETWORKS = (
    Row("MobileNetV2 1.0x", "mobilenetv2_100", _published((94.56, 0.16), (77.09, 0.17)), 2.3),
    Row("IGCV3-D 0.5x", "igcv3_d_p50", _published((94.73, 0.14), (77.29, 0.25)), 1.2),
    Row("IGCV3-D half depth", "igcv3_d_half", by_others={"cifar10": 94.75, "cifar100": 77.65}),
    Row("IGCV3-D 0.7x", "igcv3_d_p70", _published((94.92, 0.16), (77.83, 0.38)), 1.7),
    Row(
        "IGCV3-D 1.0x",
        "igcv3_d_100",
        _published((94.96, 0.07), (77.95, 0.39)),
        2.4,
        {"cifar10": 95.01, "cifar100": 78.24},
    ),
    Row("IGCV2", "igcv2_c1280_d20", _published((94.76, 0.11), (77.45, 0.35)), 2.4),
    Row("IGCV1 L96M2", "igcv1_l96m2_d38"),  # no network of the papers; of the same size
)
BASELINE = "mobilenetv2_100"  # latencies are ratios to it
# Image sides in pixels at which latency is measured, and the networks: IGCV1's and IGCV2's are built for CIFAR.
LATENCY = {
    32: tuple(row.model for row in NETWORKS),
    224: tuple(row.model for row in NETWORKS if row.model.startswith(("igcv3", "mobilenetv2"))),
}

# Each changes the recipe in one thing; trained on a part of the training images and measured on the rest of them.
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "rate halved": ("lr=0.1",),
    "rate doubled": ("lr=0.4",),
    "decay 1e-4": ("weight_decay=1e-4",),
    "decay 1e-3": ("weight_decay=1e-3",),
    "no moving average": ("ema_decay=0",),
    "no label smoothing": ("label_smoothing=0",),
    "random erasing": ("random_erasing=0.25",),
    "cutmix": ("cutmix=1",),
    "mixup": ("mixup=0.2",),
    "batches of 256": ("batch_size=256", "lr=0.4"),
    "half the epochs": ("epochs=100",),
}


class Training(NamedTuple):
    """One run: the name of its folder, its network, and what it changes in the recipe."""

    name: str
    model: str
    changes: tuple[str, ...]


def table(seeds: int, models: list[str]) -> list[Training]:
    """Every network with every seed; the first seeds first, so that a whole row of figures comes early."""
    return [
        Training(f"{model}-seed{seed}", model, (f"seed={seed}",))
        for seed in SEEDS[:seeds]
        for model in models
    ]


def ablation(seeds: int, models: list[str]) -> list[Training]:
    """Every variant of the recipe with every seed."""
    return [
        Training(f"{model}-{variant.replace(' ', '_')}-seed{seed}", model, (*changes, f"seed={seed}"))
        for seed in SEEDS[:seeds]
        for model in models
        for variant, changes in VARIANTS.items()
    ]
