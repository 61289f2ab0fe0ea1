"""The frame around the blocks: stem, stages, head, pooling, classifier, with the interface of timm's models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from igcv.errors import InputError

# Small images keep their early layers at stride 1: up to so many pixels, so many strides of 2 become 1.
EARLY_STRIDES_DROPPED = ((32, 2), (64, 1))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every network takes besides the numbers of its own table.

    Attributes:
        num_classes: outputs of the classifier; 0 leaves the pooled features.
        input_size: side in pixels of the square images that the strides are chosen for; None: the family's own.
        in_chans: channels of the images.
        global_pool: timm's pooling name: "avg", "max", "avgmax", "catavgmax", or "" for none.
        drop_rate: dropout probability before the classifier, 0 to 1.
    """

    num_classes: int = 1000
    input_size: int | None = None
    in_chans: int = 3
    global_pool: str = "avg"
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        for field, smallest in (("num_classes", 0), ("input_size", 1), ("in_chans", 1)):
            value = getattr(self, field)
            if value is not None and value < smallest:
                raise InputError(f"{field} is {value}; give a whole number of at least {smallest}")


def plan_strides(strides: Sequence[int], input_size: int) -> tuple[int, ...]:
    """The strides of a network, stem first, adapted to images of `input_size` pixels.

    The tables give the strides for 224 pixels. Images of up to 64 pixels keep the first stride of 2 at 1,
    those of up to 32 pixels the first two, so that something is left to pool.
    """
    dropped = next((count for limit, count in EARLY_STRIDES_DROPPED if input_size <= limit), 0)
    planned = []
    for stride in strides:
        drop = stride == 2 and dropped > 0
        planned.append(1 if drop else stride)
        dropped -= drop
    return tuple(planned)


class Network(nn.Module):
    """An image classifier of the family: stem -> stages -> head -> global pooling -> linear classifier.

    Args:
        stem: (N, in_chans, H, W) -> (N, C0, H/s, W/s).
        stages: the blocks of each stage.
        head: last convolution before pooling, or nn.Identity().
        widths: output channels of each stage.
        strides: total stride of the stem, then the stride of each stage.
        num_features: channels after `head`.
        options: classifier, pooling and input; see `Options`.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        head: nn.Module,
        *,
        widths: Sequence[int],
        strides: Sequence[int],
        num_features: int,
        options: Options,
    ) -> None:
        super().__init__()
        self.feature_info = _feature_info(widths, strides)
        self.reduction: int = self.feature_info[-1]["reduction"]
        if options.input_size is not None and options.input_size < self.reduction:
            raise InputError(
                f"input_size {options.input_size} is too small for this network, which divides the image size "
                f"by {self.reduction}; use at least {self.reduction}"
            )
        assert options.input_size is not None  # a builder fills in its family's own
        self.input_size, self.in_chans = options.input_size, options.in_chans
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head = head
        self.num_features = self.head_hidden_size = num_features
        self.drop = nn.Dropout(options.drop_rate)
        self.reset_classifier(options.num_classes, options.global_pool)
        self.apply(_init_weights)

    def get_classifier(self) -> nn.Module:
        """The last linear layer (nn.Identity where num_classes is 0)."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one of `num_classes` outputs, e.g. for fine-tuning."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        width = self.num_features * self.global_pool.feat_mult()
        self.classifier = nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()
        _init_weights(self.classifier)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H / reduction, W / reduction), before pooling."""
        if min(x.shape[-2:]) < self.reduction:
            raise InputError(
                f"images of {x.shape[-2]} x {x.shape[-1]} pixels are too small for this network: it divides the "
                f"size by {self.reduction}; give at least {self.reduction} x {self.reduction}"
            )
        return self.head(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, h, w) -> (N, num_classes), or the pooled features with `pre_logits`."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_classes) logits."""
        return self.forward_head(self.forward_features(x))


def _feature_info(widths: Sequence[int], strides: Sequence[int]) -> list[dict[str, Any]]:
    """timm's `feature_info`, an entry per resolution: channels, total stride and name of its last stage."""
    reduction, *stage_strides = strides
    info: dict[int, dict[str, Any]] = {}
    for i, (width, stride) in enumerate(zip(widths, stage_strides, strict=True)):
        reduction *= stride
        info[reduction] = {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
    return list(info.values())


def _init_weights(module: nn.Module) -> None:
    """Gaussian of standard deviation sqrt(2 / fan-in), biases zero: the initialisation of the original code."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
