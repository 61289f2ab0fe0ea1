"""What is trained: the rows of the comparison table, and the variants among which its recipe is chosen."""

from typing import NamedTuple

RECIPE = "recipes/cifar_table.toml"
SEEDS = (0, 1, 2)


class Row(NamedTuple):
    """A network of the comparison table.

    Attributes:
        label: what the papers call it.
        model: its name in the catalog.
        published: accuracy in percent by data set, of arXiv:1806.00178, table 2; empty where it lists none.
        published_parameters: there, in millions.
    """

    label: str
    model: str
    published: dict[str, float]
    published_parameters: float | None = None


NETWORKS = (
    Row("MobileNetV2 1.0x", "mobilenetv2_100", {"cifar10": 94.56, "cifar100": 77.09}, 2.3),
    Row("IGCV3-D 0.5x", "igcv3_d_p50", {"cifar10": 94.73, "cifar100": 77.29}, 1.2),
    Row("IGCV3-D 0.7x", "igcv3_d_p70", {"cifar10": 94.92, "cifar100": 77.83}, 1.7),
    Row("IGCV3-D 1.0x", "igcv3_d_100", {"cifar10": 94.96, "cifar100": 77.95}, 2.4),
    Row("IGCV2", "igcv2_c1280_d20", {"cifar10": 94.76, "cifar100": 77.45}, 2.4),
    Row("IGCV1 L96M2", "igcv1_l96m2_d38", {}),  # no network of the papers; of the same size
)

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
