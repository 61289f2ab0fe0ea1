"""Recipes: all settings of a training run, as data."""

from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any

from igcv.data.classes import MATCHES, NAME
from igcv.data.preprocessing import PRESETS
from igcv.data.sources.spec import source_name
from igcv.errors import InputError
from igcv.models import FORMS
from igcv.training.settings import check, setting, to_toml

NO_START = "none"  # value of init_from for random initialization, even if trained weights are available


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run; `igcv train --keys` prints this table."""

    model: str = setting("igcv3_d_100", "catalog name of the network (igcv models)")
    multiplier: float | None = setting(None, "width multiplier; replaces the one in the name", low=0)
    data: str = setting("", "data source (--data in igcv train --help)")
    data_name: str = setting("", "name of the data set in reports; empty: its folder or file")
    split: str = setting("", "CSV list of the images: path, label, split, group (igcv train --help)")
    input_size: int = setting(
        0, "side of the input images in pixels; 0: image size of the data, at most the network's", low=0
    )
    strides: tuple[int, ...] = setting(
        (),
        "stride of the stem, then of each stage, e.g. 1,1,1,2,2,1,1,1; empty: default for input_size",
    )
    progressive_sizes: tuple[int, ...] = setting(
        (), "image sides in pixels of the first parts of the run, e.g. 16,24; the last part uses input_size"
    )
    progressive_epochs: tuple[int, ...] = setting(
        (), "epochs of each part in progressive_sizes, e.g. 8,12; the remaining epochs use input_size"
    )
    preprocessing: str = setting("imagenet", "normalization of the images", choices=tuple(PRESETS))
    init_from: str = setting(
        "",
        "run folder, weights file or name of weights (igcv models --pretrained) for initialization; other classes get "
        "a new classifier; none: random initialization",
    )
    match: str = setting(
        NAME,
        "match of the data's classes with those of init_from or of the resumed run",
        choices=MATCHES,
    )
    freeze: int = setting(
        0,
        "number of first epochs that train only the classifier; later epochs train all layers, each stage at 0.8 times "
        "the learning rate of the next stage; 0: all layers at one learning rate",
        low=0,
    )

    epochs: int = setting(90, "passes over the training images", low=1)
    batch_size: int = setting(
        128, "images per optimizer step, over all processes and gradient accumulation steps", low=1
    )
    epoch_images: int = setting(
        0, "training images per epoch, a different selection in each; 0 or more than exist: all", low=0
    )
    drop_last: bool = setting(
        True, "skip an incomplete last batch; false: train on it, unless it has a single image"
    )
    max_minutes: float = setting(
        0.0, "time limit in minutes; the measured speed sets epochs; 0: no limit", low=0
    )
    patience: int = setting(
        0, "epochs without improvement (best_by) before the run stops; 0: never stop early", low=0
    )
    accumulation: int = setting(1, "gradient accumulation steps", low=1)
    optimizer: str = setting("sgd", "optimizer", choices=("sgd", "adamw"))
    lr: float = setting(0.1, "peak learning rate for the whole batch", low=0)
    momentum: float = setting(0.9, "momentum of sgd, beta1 of adamw", low=0)
    nesterov: bool = setting(True, "Nesterov momentum (sgd)")
    weight_decay: float = setting(4e-5, "weight decay", low=0)
    decay_rule: str = setting(
        "weights",
        "decayed parameters; weights: without biases and norms; mxnet: weights and batch-norm gammas; all: every "
        "parameter",
        choices=("weights", "mxnet", "all"),
    )
    schedule: str = setting(
        "cosine", "learning rate schedule", choices=("cosine", "step", "exponential", "constant")
    )
    warmup_epochs: float = setting(0.0, "epochs of linear learning rate warm-up", low=0)
    min_lr: float = setting(0.0, "final learning rate of the cosine", low=0)
    lr_factor: float = setting(
        0.1, "step: factor at each of lr_step_epochs; exponential: factor per epoch", low=0
    )
    lr_step_epochs: tuple[float, ...] = setting(
        (), "step: epochs at which lr_factor multiplies the learning rate"
    )
    clip_grad_norm: float = setting(0.0, "maximum gradient norm; 0: no clipping", low=0)
    ema_decay: float = setting(
        0.0, "EMA decay of the weights, per step; the EMA weights are evaluated; 0: no EMA", low=0
    )

    augment: str = setting(
        "flip_crop",
        "geometric and color augmentation",
        choices=("none", "shift", "flip_crop", "inception", "mxnet"),
    )
    randaugment: str = setting("", "RandAugment policy of timm, e.g. rand-m9-n2-mstd0.5; empty: none")
    random_erasing: float = setting(0.0, "probability of erasing a rectangle", low=0)
    mixup: float = setting(0.0, "alpha of mixup; 0: none", low=0)
    cutmix: float = setting(0.0, "alpha of cutmix; 0: none", low=0)
    label_smoothing: float = setting(
        0.0, "label smoothing: share of the target spread over all classes", low=0
    )
    drop_rate: float = setting(0.0, "dropout before the classifier", low=0)
    class_weights: str = setting(
        "none",
        "weight of an image in the loss; none: 1; balanced: inverse class frequency, with mean 1 over all images",
        choices=("none", "balanced"),
    )
    sampling: str = setting(
        "shuffled",
        "sampling of the training images; shuffled: each image at most once per epoch; balanced: each class "
        "equally often, in epochs of the same length",
        choices=("shuffled", "balanced"),
    )
    best_by: str = setting(
        "top1",
        "metric that selects the best epoch: top-1 accuracy, balanced accuracy (mean recall of the classes) or loss",
        choices=("top1", "balanced", "loss"),
    )

    precision: str = setting(
        "float32",
        "precision of the forward pass; auto: bf16 if native and measured faster at the start of the run",
        choices=("auto", "float32", "bf16", "fp16"),
    )
    form: str = setting(
        "auto",
        "implementation of the blocks, with equal results; measure: time all at the start and keep the fastest",
        choices=("auto", "measure", "literal", *FORMS),
    )
    channels_last: bool = setting(True, "channels-last memory layout of images and weights")
    compile: bool = setting(False, "torch.compile for the network")
    sync_batch_norm: bool = setting(False, "batch norm statistics over all processes")
    workers: int = setting(-1, "data-loading workers per training process; -1: automatic", low=-1)
    resident: str = setting(
        "auto",
        "cache of the decoded images in device memory; auto: if they are squares of one size, few enough, and augment "
        "is none, shift or flip_crop without randaugment",
        choices=("auto", "on", "off"),
    )
    cuda_graph: str = setting(
        "auto",
        "whole optimizer steps as CUDA graphs, with equal results; auto: for resident images on one NVIDIA GPU with "
        "sgd and without accumulation, fp16, compile and decay_rule=mxnet",
        choices=("auto", "on", "off"),
    )
    save_minutes: float = setting(
        10.0, "minutes between checkpoints within an epoch; 0: after every step", low=0
    )
    max_bad_images: int = setting(
        -1,
        "unreadable training images to skip before the run stops; -1: a tenth of the training images, at most 100, or "
        "1 % if that is more",
        low=-1,
    )
    max_left_out: int = setting(20, "fp16: consecutive overflow steps to skip before the run stops", low=0)
    seed: int = setting(0, "random seed of weights, image order and augmentation", low=0)

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f.name, getattr(self, f.name), f.metadata)
        for name in ("momentum", "label_smoothing", "ema_decay", "drop_rate"):
            if getattr(self, name) >= 1:
                raise InputError(f"{name}: got {getattr(self, name):g}, expected less than 1")
        if self.random_erasing > 1:
            raise InputError(f"random_erasing: got {self.random_erasing:g}, expected at most 1")
        if self.seed >= 2**63:
            raise InputError(f"seed: got {self.seed}, expected less than 2^63")
        _check_parts(self)
        _check_schedule(self)
        for name, value in vars(self).items():
            if (
                isinstance(value, str)
                and not value.isascii()
                and value.encode(errors="replace").decode() != value
            ):
                raise InputError(f"{name}: got {value!r}, expected text that UTF-8 can encode. Rename it")

    @property
    def data_set(self) -> str:
        """The name of the data set."""
        return self.data_name or source_name(self.data)

    @property
    def start(self) -> str:
        """The weights for initialization; empty for random initialization."""
        return "" if self.init_from == NO_START else self.init_from

    @property
    def sizes(self) -> tuple[int, ...]:
        """The image sides of all parts of the run, in pixels; input_size comes last."""
        return (*self.progressive_sizes, self.input_size)

    def size_at(self, epoch: int) -> int:
        """Return the image side in `epoch` (from 0), in pixels; input_size must be resolved."""
        parts = zip(self.progressive_sizes, accumulate(self.progressive_epochs), strict=True)
        return next((size for size, end in parts if epoch < end), self.input_size)

    @property
    def step_costs(self) -> list[int]:
        """The pixels per image in each epoch; the time of a step is proportional to them."""
        return [self.size_at(epoch) ** 2 for epoch in range(self.epochs)]

    def to_toml(self) -> str:
        """Return the recipe as the text of a recipe file."""
        lines = ["# All settings of this run. igcv train accepts this file as a recipe."]
        lines += [f"{key} = {to_toml(value)}" for key, value in asdict(self).items() if value is not None]
        return "\n".join(lines) + "\n"


def _check_parts(recipe: Recipe) -> None:
    """Raise InputError unless the settings of progressive resizing match each other, epochs and input_size."""
    sizes, epochs = recipe.progressive_sizes, recipe.progressive_epochs
    for name, values in (("progressive_sizes", sizes), ("progressive_epochs", epochs)):
        if values and min(values) < 1:
            raise InputError(f"{name}: got {_listed(values)}, expected integers >= 1")
    if len(sizes) != len(epochs):
        raise InputError(
            f"progressive_sizes and progressive_epochs: got {len(sizes)} numbers ({_listed(sizes)}) and {len(epochs)} "
            f"({_listed(epochs)}), expected equal counts. Give both, e.g. progressive_sizes=16,24 "
            "progressive_epochs=8,12"
        )
    if sum(epochs) >= recipe.epochs:
        raise InputError(
            f"progressive_epochs: got {_listed(epochs)} with epochs = {recipe.epochs}, expected a sum of at most "
            f"{recipe.epochs - 1}. Give fewer progressive_epochs, or epochs={sum(epochs) + 1} or more"
        )
    if recipe.input_size and sizes and max(sizes) > recipe.input_size:
        raise InputError(
            f"progressive_sizes: got {_listed(sizes)}, expected at most input_size = {recipe.input_size}. Give smaller "
            "sizes or a larger input_size"
        )


def _check_schedule(recipe: Recipe) -> None:
    """Raise InputError if the settings of the learning rate contradict each other."""
    if recipe.warmup_epochs > recipe.epochs:
        raise InputError(
            f"warmup_epochs: got {recipe.warmup_epochs:g}, expected at most epochs = {recipe.epochs}. Give "
            f"warmup_epochs={recipe.epochs / 10:g} or more epochs"
        )
    if recipe.schedule == "step" and not recipe.lr_step_epochs:
        raise InputError(
            "schedule: got step without lr_step_epochs. Give lr_step_epochs, e.g. 30,60, or schedule=cosine"
        )
    if 0 < recipe.lr <= recipe.min_lr:
        raise InputError(
            f"min_lr: got {recipe.min_lr:g}, expected less than lr = {recipe.lr:g}. Give a smaller min_lr"
        )


def _listed(values: tuple[Any, ...]) -> str:
    """Return a list in the syntax of the command line."""
    return ",".join(map(str, values)) or "none"
