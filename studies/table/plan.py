"""Plan of the trainings: rows of the comparison table and variants of its recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from igcv.errors import InputError

SEEDS = (0, 1, 2)
ABLATION_RECIPE = "recipes/cifar_table.toml"
# Recipes by device and data set.
RECIPES = {
    "gpu": {
        "cifar10": "recipes/cifar_table.toml",
        "cifar100": "recipes/cifar_table.toml",
        "tinyimagenet": "recipes/tinyimagenet.toml",
    },
    "cpu": {
        "cifar10": "recipes/cifar_cpu.toml",
        "cifar100": "recipes/cifar_cpu.toml",
        "tinyimagenet": "recipes/tinyimagenet.toml",
    },
}


class DataSet(NamedTuple):
    """Data set of a training.

    Attributes:
        name: name in folders and released weights.
        spec: value of --data in `igcv train`.
        label: name in tables.
    """

    name: str
    spec: str
    label: str


DATA_SETS = (
    DataSet("cifar10", "cifar10", "CIFAR-10"),
    DataSet("cifar100", "cifar100", "CIFAR-100"),
    DataSet("tinyimagenet", "tinyimagenet:data/tiny-imagenet-200", "Tiny-ImageNet"),
)


def data_set(text: str) -> DataSet:
    """Return the data set of an option, NAME or NAME=SPEC.

    Raises:
        InputError: if the name is unknown and has no spec, or contains characters other than letters, digits and _.
    """
    name, _, spec = text.partition("=")
    if not name.replace("_", "").isalnum():
        raise InputError(
            f"--data: got '{text}', expected NAME or NAME=SPEC with letters, digits and _ in NAME"
        )
    known = next((data for data in DATA_SETS if data.name == name), None)
    if known is None and not spec:
        names = ", ".join(data.name for data in DATA_SETS)
        raise InputError(
            f"--data: got '{text}', expected one of {names}, or NAME=SPEC with the --data of igcv train"
        )
    return known._replace(spec=spec or known.spec) if known else DataSet(name, spec, name)


def label_of(name: str) -> str:
    """Return the name of a data set in tables."""
    return next((data.label for data in DATA_SETS if data.name == name), name)


class Published(NamedTuple):
    """Accuracy in the IGCV3 paper in percent: mean and standard deviation of five runs."""

    mean: float
    deviation: float


class TableRow(NamedTuple):
    """Network of the comparison table.

    Attributes:
        label: name in the papers.
        model: catalog name.
        published: accuracy by data set in the IGCV3 paper (arXiv:1806.00178, tables 1 and 2).
        published_parameters: millions of parameters in the paper's repository. The paper excludes the classifier.
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
    TableRow("MobileNetV2 1.0x", "mobilenetv2_100", _published((94.56, 0.16), (77.09, 0.17)), 2.3),
    TableRow("IGCV3-D 0.5x", "igcv3_d_p50", _published((94.73, 0.14), (77.29, 0.25)), 1.2),
    TableRow("IGCV3-D half depth", "igcv3_d_half", by_others={"cifar10": 94.75, "cifar100": 77.65}),
    TableRow("IGCV3-D 0.7x", "igcv3_d_p70", _published((94.92, 0.16), (77.83, 0.38)), 1.7),
    TableRow(
        "IGCV3-D 1.0x",
        "igcv3_d_100",
        _published((94.96, 0.07), (77.95, 0.39)),
        2.4,
        {"cifar10": 95.01, "cifar100": 78.24},
    ),
    TableRow("IGCV2", "igcv2_c1280_d20", _published((94.76, 0.11), (77.45, 0.35)), 2.4),
    TableRow("IGCV1 L96M2", "igcv1_l96m2_d38"),  # not in the papers; of similar size
)
BASELINE = "mobilenetv2_100"  # reference of latency ratios
# Image side in pixels -> networks whose latency is measured. IGCV1 and IGCV2 are built for CIFAR.
LATENCY = {
    32: tuple(row.model for row in NETWORKS),
    224: tuple(row.model for row in NETWORKS if row.model.startswith(("igcv3", "mobilenetv2"))),
}

# Variant -> changes to the recipe. Names are also folder names.
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "rate halved": ("lr=0.25",),
    "rate doubled": ("lr=1",),
    "decay 1e-4": ("weight_decay=1e-4",),
    "decay 1e-3": ("weight_decay=1e-3",),
    "no moving average": ("ema_decay=0",),
    "no label smoothing": ("label_smoothing=0",),
    "random erasing": ("random_erasing=0.25",),
    "cutmix": ("cutmix=1",),
    "mixup": ("mixup=0.2",),
    "batches of 128": ("batch_size=128", "lr=0.2"),
    "half the epochs": ("epochs=100",),
}


# Order of the trainings. IGCV1 and IGCV2 come last, because they take many times as long.
ORDER = (
    ("cifar10", ("igcv3_d_p50", "mobilenetv2_100")),
    ("tinyimagenet", ("igcv3_d_p50",)),
    ("cifar10", ("igcv3_d_100",)),
    ("cifar100", ("igcv3_d_p50", "mobilenetv2_100", "igcv3_d_100")),
    ("cifar10", ("igcv3_d_half", "igcv3_d_p70")),
    ("cifar100", ("igcv3_d_half", "igcv3_d_p70")),
)
SLOW = ("igcv2_c1280_d20", "igcv1_l96m2_d38")


class Training(NamedTuple):
    """Training of one network.

    Attributes:
        name: path of the folder below runs and results: data set, recipe, and network with variant and seed.
        data: data set.
        recipe: path of the recipe.
        model: catalog name of the network.
        changes: changes to the recipe.
    """

    name: str
    data: DataSet
    recipe: str
    model: str
    changes: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """Arguments of `igcv train`."""
        return [self.recipe, *self.changes, "--data", self.data.spec, "--model", self.model]


def folder_of(data: str, recipe: str) -> str:
    """Return the folder below runs and results for a data set and a recipe."""
    return f"{data}/{Path(recipe).stem}"


def table_trainings(
    data: Sequence[DataSet],
    recipes: Mapping[str, str],
    models: Sequence[str],
    seeds: int,
    changes: Sequence[str] = (),
) -> list[Training]:
    """Return the trainings of the comparison table in order: all networks with one seed, then the next seed.

    Args:
        data: data sets. Data sets that `ORDER` does not list come after the listed ones.
        recipes: path of the recipe by name of the data set.
        models: catalog names of networks.
        seeds: number of seeds, from 0.
        changes: changes to the recipe.
    """
    known = {d.name: d for d in data}
    others = [(d.name, models) for d in data if d.name not in {name for name, _ in ORDER}]
    fast = [(name, model) for name, listed in [*ORDER, *others] for model in listed if model not in SLOW]
    slow = [(name, model) for name in known for model in SLOW if name != "tinyimagenet"]
    found = []
    for pairs in (fast, slow):
        for seed in SEEDS[:seeds]:
            for name, model in pairs:
                if name in known and model in models:
                    path = f"{folder_of(name, recipes[name])}/{model}-seed{seed}"
                    settings = (*changes, f"seed={seed}")
                    found.append(Training(path, known[name], recipes[name], model, settings))
    return found


def ablation_trainings(data: DataSet, model: str, seeds: int, changes: Sequence[str] = ()) -> list[Training]:
    """Return a training for every variant of the recipe and every seed, on training images only."""
    held_out = data._replace(name=f"{data.name}_ablation", spec=f"train:{data.spec}")
    folder = folder_of(held_out.name, ABLATION_RECIPE)
    return [
        Training(
            f"{folder}/{model}-{variant.replace(' ', '_')}-seed{seed}",
            held_out,
            ABLATION_RECIPE,
            model,
            (*changes, *variation, f"seed={seed}"),
        )
        for seed in SEEDS[:seeds]
        for variant, variation in VARIANTS.items()
    ]
