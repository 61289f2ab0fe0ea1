"""The frame around the blocks: stem, stages, head, pooling, classifier, with the interface of timm's models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igcv.errors import InputError, unknown

# Small images keep some layers at stride 1. Up to this many pixels, these of a table's strides of 2 become 1; they are
# counted from the stem, -1 is the last.
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
    """What every network takes besides the numbers of its own table.

    Attributes:
        num_classes: outputs of the classifier; 0 leaves the pooled features.
        input_size: side in pixels of the square images that the strides are chosen for; None: the family's own.
        in_chans: channels of the images.
        global_pool: pooling by timm's name: "avg", "max", "avgmax", "catavgmax", or "" for none.
        drop_rate: dropout probability before the classifier, 0 to 1.
        strides: total stride of the stem, then the stride of each stage; None: those of the family for `input_size`.
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
                raise InputError(f"{field} is {value}; give a whole number of at least {smallest}")


def plan_strides(published: Sequence[int], input_size: int, plan: StridePlan) -> tuple[int, ...]:
    """Return the strides of a network for images of `input_size` pixels.

    Args:
        published: strides of the paper's table, which is for 224 pixels, stem first.
        input_size: side of the images in pixels.
        plan: which strides of 2 become 1 for small images.

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
    """Return the strides `given` by the user, or else those `planned`.

    Args:
        given: total stride of the stem, then the stride of each stage; None: as planned.
        planned: the same for the family and the input size.
        stem: strides that the stem can have; stages have 1 or 2.

    Raises:
        InputError: for another number of strides, or strides that the layers cannot have.
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
    """Return strides as recipes and commands take them: stem, then stages, with commas."""
    return ",".join(map(str, strides))


class GlobalPool(nn.Module):
    """Pooling over all pixels by timm's names: (N, C, H, W) -> (N, C), (N, 2 C) for "catavgmax".

    timm has the same; it takes seconds to import.

    Args:
        pool_type: "avg", "max", "avgmax" (their mean), "catavgmax" (side by side), or "" to leave the pixels.

    Raises:
        InputError: for another name.
    """

    def __init__(self, pool_type: str) -> None:
        super().__init__()
        if pool_type not in POOLS:
            raise unknown("global_pool", pool_type, POOLS)
        self.pool_type = pool_type
        self.pools = nn.ModuleList(pool(1) for pool in POOLS[pool_type])
        self.flatten = nn.Flatten(1) if pool_type else nn.Identity()

    def feat_mult(self) -> int:
        """How many times as many channels come out."""
        return 2 if self.pool_type.startswith("cat") else 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x
        pooled = [pool(x) for pool in self.pools]
        if self.pool_type == "avgmax":
            pooled = [0.5 * (pooled[0] + pooled[1])]
        return self.flatten(torch.cat(pooled, 1) if len(pooled) > 1 else pooled[0])


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

    Attributes:
        strides: the same, as they are.
        reduction: their product, by which the network divides the side of an image.
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
                f"input_size: got {options.input_size}, expected at least {self.reduction}, by which the strides "
                f"{strides_text(strides)} divide the image size"
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
            self.global_pool = GlobalPool(global_pool)
        width = self.num_features * self.global_pool.feat_mult()
        self.classifier = nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()
        _init_weights(self.classifier)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's groups of layers by patterns of names, from the input on; what no pattern matches is the last one.

        Args:
            coarse: a group for each stage, else for each block.
        """
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

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
    """Gaussian of standard deviation sqrt(2 / fan-in), biases zero: the initialization of the original code.

    Without memory (device "meta") there is nothing to initialize, and drawing would load torch's compiler.
    """
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
