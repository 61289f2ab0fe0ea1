"""A recipe: every setting of a training run, as data."""

from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any

from igcv.data.classes import MATCHES, NAME
from igcv.data.preprocessing import PRESETS
from igcv.data.sources.spec import source_name
from igcv.errors import InputError
from igcv.models import FORMS
from igcv.training.settings import check, setting, to_toml

NO_START = "none"  # as init_from: random weights, also where trained ones are at hand


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run; `igcv train --keys` prints this table."""

    model: str = setting("igcv3_d_100", "network, a name of the catalog (igcv models)")
    multiplier: float | None = setting(None, "width multiplier, instead of the one in the name", low=0)
    data: str = setting("", "data set (see igcv train --help)")
    data_name: str = setting("", "what reports call the data set; empty: by its folder or file")
    split: str = setting("", "CSV list of the images: path, label, split, group (igcv train --help)")
    input_size: int = setting(
        0, "side of the input images in pixels; 0: the network's own, at most the data's", low=0
    )
    strides: tuple[int, ...] = setting(
        (),
        "stride of the stem, then of each stage, e.g. 1,1,1,2,2,1,1,1; empty: the network's for input_size",
    )
    progressive_sizes: tuple[int, ...] = setting(
        (), "image sides in pixels of the first parts of the run, e.g. 16,24; input_size follows; empty: none"
    )
    progressive_epochs: tuple[int, ...] = setting(
        (), "epochs of each of these parts, e.g. 8,12; the remaining epochs train at input_size"
    )
    preprocessing: str = setting("imagenet", "normalisation", choices=tuple(PRESETS))
    init_from: str = setting(
        "",
        "run folder, weights file or name of weights (igcv models --pretrained) to start from, with a new classifier "
        "for another number of classes; none: random weights",
    )
    match: str = setting(
        NAME,
        "how the classes of init_from, or of a run that is resumed, are matched with those of the data",
        choices=MATCHES,
    )
    freeze: int = setting(
        0,
        "fine-tuning in stages: in the first epochs only the classifier is trained, then all layers, each stage at 0.8 "
        "of the rate of the one after it; 0: all layers at one rate",
        low=0,
    )

    epochs: int = setting(90, "passes over the training images", low=1)
    batch_size: int = setting(
        128, "images per optimizer step, over all processes and accumulated parts", low=1
    )
    epoch_images: int = setting(
        0, "training images of an epoch, others in each; 0: all, as with a number above theirs", low=0
    )
    drop_last: bool = setting(
        True, "leave out a last batch that is not full; false: train on it, unless it has one image alone"
    )
    max_minutes: float = setting(
        0.0, "time of the training, to which epochs are fitted by measured speed; 0: no limit", low=0
    )
    patience: int = setting(0, "epochs without a new best after which the run ends; 0: all epochs", low=0)
    accumulation: int = setting(1, "parts a batch is cut into, to save memory", low=1)
    optimizer: str = setting("sgd", "optimizer", choices=("sgd", "adamw"))
    lr: float = setting(0.1, "peak learning rate for the whole batch", low=0)
    momentum: float = setting(0.9, "momentum of sgd, first beta of adamw", low=0)
    nesterov: bool = setting(True, "Nesterov's momentum (sgd)")
    weight_decay: float = setting(4e-5, "weight decay", low=0)
    decay_rule: str = setting(
        "weights",
        "what decays: weights (not biases and norms), mxnet (weights and batch-norm gammas) or all parameters",
        choices=("weights", "mxnet", "all"),
    )
    schedule: str = setting("cosine", "learning rate", choices=("cosine", "step", "exponential", "constant"))
    warmup_epochs: float = setting(0.0, "epochs over which the rate rises linearly to its peak", low=0)
    min_lr: float = setting(0.0, "rate at the end of the cosine", low=0)
    lr_factor: float = setting(
        0.1, "step: factor at each of lr_step_epochs; exponential: factor per epoch", low=0
    )
    lr_step_epochs: tuple[float, ...] = setting(
        (), "step: epochs at which the rate is multiplied by lr_factor"
    )
    clip_grad_norm: float = setting(0.0, "largest gradient norm; 0: no limit", low=0)
    ema_decay: float = setting(
        0.0, "decay per step of the weights' moving average, which is evaluated; 0: none", low=0
    )

    augment: str = setting(
        "flip_crop", "geometry and colour", choices=("none", "shift", "flip_crop", "inception", "mxnet")
    )
    randaugment: str = setting("", "timm's RandAugment, e.g. rand-m9-n2-mstd0.5; empty: none")
    random_erasing: float = setting(0.0, "probability of erasing a rectangle", low=0)
    mixup: float = setting(0.0, "alpha of mixup; 0: none", low=0)
    cutmix: float = setting(0.0, "alpha of cutmix; 0: none", low=0)
    label_smoothing: float = setting(0.0, "share of the target spread over all classes", low=0)
    drop_rate: float = setting(0.0, "dropout before the classifier", low=0)
    class_weights: str = setting(
        "none",
        "weight of an image in the loss; balanced: inverse to the images of its class, with mean 1 over all images",
        choices=("none", "balanced"),
    )
    sampling: str = setting(
        "shuffled",
        "training images of an epoch; balanced: as many, each class equally often",
        choices=("shuffled", "balanced"),
    )
    best_by: str = setting(
        "top1",
        "what the best epoch is best in: top-1 accuracy, balanced accuracy (mean recall of the classes) or loss",
        choices=("top1", "balanced", "loss"),
    )

    precision: str = setting(
        "float32",
        "arithmetic of the forward pass; auto: bf16 where it is native and measured faster at the start of the run",
        choices=("auto", "float32", "bf16", "fp16"),
    )
    form: str = setting(
        "auto",
        "how the blocks are computed, with equal results; measure: try all at the start and keep the fastest",
        choices=("auto", "measure", "literal", *FORMS),
    )
    channels_last: bool = setting(True, "memory layout of images and weights")
    compile: bool = setting(False, "torch.compile the network")
    sync_batch_norm: bool = setting(False, "batch statistics over all processes")
    workers: int = setting(
        -1, "processes that decode images, for each training process; -1: automatic", low=-1
    )
    resident: str = setting(
        "auto",
        "keep the decoded images on the device; auto: where they are squares of one size, few enough, and augment "
        "is none, shift or flip_crop without randaugment",
        choices=("auto", "on", "off"),
    )
    save_minutes: float = setting(
        10.0, "minutes between checkpoints within an epoch; 0: after each step", low=0
    )
    max_bad_images: int = setting(
        -1,
        "unreadable training images to pass over; -1: a tenth of them, at most 100, or 1 % if that is more",
        low=-1,
    )
    max_left_out: int = setting(
        20, "fp16: steps in a row that may be left out as their gradients overflow", low=0
    )
    seed: int = setting(0, "seed of weights, order and augmentation", low=0)

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f.name, getattr(self, f.name), f.metadata)
        if self.momentum >= 1 or self.seed >= 2**63:
            raise InputError("momentum is below 1 and seed below 2^63; give smaller ones")
        if self.random_erasing > 1 or self.label_smoothing >= 1 or self.ema_decay >= 1 or self.drop_rate >= 1:
            raise InputError(
                "random_erasing, label_smoothing, ema_decay and drop_rate are shares: give 0 to 1"
            )
        _check_parts(self)
        _check_schedule(self)
        for name, value in vars(self).items():
            if (
                isinstance(value, str)
                and not value.isascii()
                and value.encode(errors="replace").decode() != value
            ):
                raise InputError(f"{name} = {value!r} holds characters that UTF-8 cannot write; rename it")

    @property
    def data_set(self) -> str:
        """What the data set is called."""
        return self.data_name or source_name(self.data)

    @property
    def start(self) -> str:
        """The weights to start from; empty for random ones."""
        return "" if self.init_from == NO_START else self.init_from

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in pixels of the images of all parts of the run, the last one input_size."""
        return (*self.progressive_sizes, self.input_size)

    def size_at(self, epoch: int) -> int:
        """Return the side in pixels of the images in `epoch`, counted from 0; input_size is resolved before."""
        parts = zip(self.progressive_sizes, accumulate(self.progressive_epochs), strict=True)
        return next((size for size, end in parts if epoch < end), self.input_size)

    @property
    def step_costs(self) -> list[int]:
        """The pixels of an image in each epoch, by which the time of a step grows."""
        return [self.size_at(epoch) ** 2 for epoch in range(self.epochs)]

    def to_toml(self) -> str:
        """The resolved recipe as a file that `igcv train` reads back."""
        lines = ["# Every setting of this run; igcv train reads it back as a recipe."]
        lines += [f"{key} = {to_toml(value)}" for key, value in asdict(self).items() if value is not None]
        return "\n".join(lines) + "\n"


def _check_parts(recipe: Recipe) -> None:
    """Raise InputError unless the settings of progressive resizing fit each other, epochs and input_size."""
    sizes, epochs = recipe.progressive_sizes, recipe.progressive_epochs
    for name, values in (("progressive_sizes", sizes), ("progressive_epochs", epochs)):
        if values and min(values) < 1:
            raise InputError(f"{name}: got {_listed(values)}, expected whole numbers of at least 1")
    if len(sizes) != len(epochs):
        raise InputError(
            f"progressive_sizes has {len(sizes)} numbers ({_listed(sizes)}) and progressive_epochs {len(epochs)} "
            f"({_listed(epochs)}), expected as many. Give both for each part, e.g. progressive_sizes=16,24 "
            "progressive_epochs=8,12"
        )
    if sum(epochs) >= recipe.epochs:
        raise InputError(
            f"progressive_epochs: got {_listed(epochs)}, which uses up all {recipe.epochs} epochs; expected a sum of "
            f"at most {recipe.epochs - 1}. Leave epochs for input_size, or give epochs={sum(epochs) + 1} or more"
        )
    if recipe.input_size and sizes and max(sizes) > recipe.input_size:
        raise InputError(
            f"progressive_sizes: got {_listed(sizes)}, expected at most input_size = {recipe.input_size}. Give smaller "
            "sizes, or a larger input_size"
        )


def _check_schedule(recipe: Recipe) -> None:
    """Raise InputError where settings of the learning rate contradict each other."""
    if recipe.warmup_epochs > recipe.epochs:
        raise InputError(
            f"warmup_epochs: got {recipe.warmup_epochs:g}, expected at most epochs = {recipe.epochs}, so that the "
            f"rate reaches its peak. Give warmup_epochs={recipe.epochs / 10:g}, or more epochs"
        )
    if recipe.schedule == "step" and not recipe.lr_step_epochs:
        raise InputError(
            "schedule: got step, but lr_step_epochs names no epochs. Give lr_step_epochs=30,60, or schedule=cosine"
        )
    if 0 < recipe.lr <= recipe.min_lr:
        raise InputError(
            f"min_lr: got {recipe.min_lr:g}, expected less than lr = {recipe.lr:g}, the peak. Give a smaller min_lr"
        )


def _listed(values: tuple[Any, ...]) -> str:
    """A list as the command line takes it."""
    return ",".join(map(str, values)) or "none"
