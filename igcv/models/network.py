"""Network of stem, stages, head, pooling and classifier, with the interface of timm's models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igcv.errors import InputError, unknown

# For small images, some strides of 2 become 1. Each entry holds a maximum input size in pixels, and the indices of
# these strides among the strides of 2, from the stem on.
StridePlan = tuple[tuple[int, tuple[int, ...]], ...]
BOTH_ENDS: StridePlan = ((32, (0, 1, -1)), (64, (0, -1)))  # IGCV3, MobileNetV2: 32 and 64 pixels end at 8 x 8
EARLY: StridePlan = ((32, (0, 1)), (64, (0,)))  # IGCV1 and IGCV2 as built for ImageNet

POOLS: dict[str, tuple[type[nn.Module], ...]] = {
    "avg": (nn.AdaptiveAvgPool2d,),
    "max": (nn.AdaptiveMaxPool2d,),
    "avgmax": (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    "catavgmax": (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    "": (),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every network.

    Attributes:
        num_classes: number of outputs of the classifier; 0 returns pooled features.
        input_size: side of the square input images, in pixels, for which the strides are chosen; None: the published
            size of the family.
        in_chans: number of channels of the images.
        global_pool: timm's name of the pooling: "avg", "max", "avgmax", "catavgmax", or "" for no pooling.
        drop_rate: dropout probability before the classifier, 0 to 1.
        strides: total stride of the stem, then the stride of each stage; None: the strides of the family for
            `input_size`.
    """

    num_classes: int = 1000
    input_size: int | None = None
    in_chans: int = 3
    global_pool: str = "avg"
    drop_rate: float = 0.0
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for field, smallest in (("num_classes", 0), ("input_size", 1), ("in_chans", 1)):
            value = getattr(self, field)
            if value is not None and value < smallest:
                raise InputError(f"{field}: got {value}, expected an integer >= {smallest}")


def plan_strides(published: Sequence[int], input_size: int, plan: StridePlan) -> tuple[int, ...]:
    """Return the strides of a network for images of `input_size` pixels.

    Args:
        published: strides of the paper's table for 224 pixels, stem first.
        input_size: side of the images, in pixels.
        plan: the strides of 2 that become 1 for small images.

    >>> plan_strides((2, 1, 2, 2, 2, 1, 2, 1), 32, BOTH_ENDS)
    (1, 1, 1, 2, 2, 1, 1, 1)
    """
    strided = [i for i, stride in enumerate(published) if stride == 2]
    kept = next((places for limit, places in plan if input_size <= limit), ())
    at_one = {strided[place] for place in kept}
    return tuple(1 if i in at_one else stride for i, stride in enumerate(published))


def checked_strides(
    given: Sequence[int] | None, planned: Sequence[int], stem: Sequence[int] = (1, 2)
) -> tuple[int, ...]:
    """Return the strides of the user if given, otherwise the planned strides.

    Args:
        given: total stride of the stem, then the stride of each stage; None: use `planned`.
        planned: the strides of the family for the input size.
        stem: valid strides of the stem; stages have 1 or 2.

    Raises:
        InputError: if the number of strides or a stride is invalid.
    """
    if given is None:
        return tuple(planned)
    fits = len(given) == len(planned) and given[0] in stem and all(stride in (1, 2) for stride in given[1:])
    if not fits:
        choices = " or ".join(map(str, stem))
        raise InputError(
            f"strides: got {strides_text(given)}, expected {len(planned)} numbers, {choices} for the stem and 1 or 2 "
            f"for each of the {len(planned) - 1} stages. Give for example strides={strides_text(planned)}"
        )
    return tuple(given)


def strides_text(strides: Sequence[int]) -> str:
    """Return strides as text for recipes and commands, separated by commas: stem, then stages."""
    return ",".join(map(str, strides))


class GlobalPool(nn.Module):
    """Global pooling with timm's names: (N, C, H, W) -> (N, C), or (N, 2 C) for "catavgmax".

    igcv does not use timm's class because importing timm takes seconds.

    Args:
        pool_type: "avg", "max", "avgmax" (mean of both), "catavgmax" (concatenation of both), or "" for no pooling.

    Raises:
        InputError: if the name is unknown.
    """

    def __init__(self, pool_type: str) -> None:
        super().__init__()
        if pool_type not in POOLS:
            raise unknown("global_pool", pool_type, POOLS)
        self.pool_type = pool_type
        self.pools = nn.ModuleList(pool(1) for pool in POOLS[pool_type])
        self.flatten = nn.Flatten(1) if pool_type else nn.Identity()

    def feat_mult(self) -> int:
        """Return the number of output channels per input channel."""
        return 2 if self.pool_type.startswith("cat") else 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x
        pooled = [pool(x) for pool in self.pools]
        if self.pool_type == "avgmax":
            pooled = [0.5 * (pooled[0] + pooled[1])]
        return self.flatten(torch.cat(pooled, 1) if len(pooled) > 1 else pooled[0])


class Network(nn.Module):
    """Image classifier: stem -> stages -> head -> global pooling -> linear classifier.

    Args:
        stem: first layers, (N, in_chans, H, W) -> (N, C0, H/s, W/s).
        stages: the blocks of each stage.
        head: last convolution before pooling, or nn.Identity().
        widths: output channels of each stage.
        strides: total stride of the stem, then the stride of each stage.
        num_features: channels after `head`.
        options: classifier, pooling and input; see `Options`.

    Attributes:
        strides: total stride of the stem, then the stride of each stage.
        reduction: total stride of the network: the ratio of the image size to the size of the last feature map.
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
        self.strides = tuple(strides)
        self.feature_info = _feature_info(widths, strides)
        self.reduction: int = self.feature_info[-1]["reduction"]
        if options.input_size is not None and options.input_size < self.reduction:
            raise InputError(
                f"input_size: got {options.input_size}, expected at least {self.reduction}, the product of the "
                f"strides {strides_text(strides)}"
            )
        assert options.input_size is not None  # the builder sets the size of its family
        self.input_size, self.in_chans = options.input_size, options.in_chans
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head = head
        self.num_features = self.head_hidden_size = num_features
        self.drop = nn.Dropout(options.drop_rate)
        self.reset_classifier(options.num_classes, options.global_pool)
        self.apply(_init_weights)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer, or nn.Identity if num_classes is 0."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a randomly initialized one with `num_classes` outputs, e.g. for fine-tuning."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = GlobalPool(global_pool)
        width = self.num_features * self.global_pool.feat_mult()
        self.classifier = nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()
        _init_weights(self.classifier)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns of parameter names that group the layers for timm, from the input on.

        timm puts all parameters without a match into the last group.

        Args:
            coarse: True for one group per stage, False for one group per block.
        """
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the unpooled features: (N, in_chans, H, W) -> (N, num_features, H / reduction, W / reduction)."""
        if min(x.shape[-2:]) < self.reduction:
            raise InputError(
                f"image size: got {x.shape[-2]} x {x.shape[-1]} pixels, expected at least {self.reduction} x "
                f"{self.reduction}, the total stride of this network"
            )
        return self.head(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits, or the pooled features with `pre_logits`: (N, num_features, h, w) -> (N, num_classes)."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, in_chans, H, W) -> (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _feature_info(widths: Sequence[int], strides: Sequence[int]) -> list[dict[str, Any]]:
    """Return timm's `feature_info`: per resolution, the channels, total stride and name of its last stage."""
    reduction, *stage_strides = strides
    info: dict[int, dict[str, Any]] = {}
    for i, (width, stride) in enumerate(zip(widths, stage_strides, strict=True)):
        reduction *= stride
        info[reduction] = {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
    return list(info.values())


def _init_weights(module: nn.Module) -> None:
    """Initialize a layer as in the original code: Gaussian with standard deviation sqrt(2 / fan-in), biases zero.

    Layers on the device "meta" are skipped: they have no values, and drawing would load torch's compiler.
    """
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
