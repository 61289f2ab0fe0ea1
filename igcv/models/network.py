"""Network of stem, stages, head, pooling and classifier, with the interface of timm's models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igcv.errors import InputError
from igcv.models.checkpointing import checkpointed
from igcv.models.dilation import dilate
from igcv.models.drop_path import drop_paths
from igcv.models.levels import feature_levels, level_indices
from igcv.models.pooling import GlobalPool

# For small images, some strides of 2 become 1. Each entry holds a maximum input size in pixels, and the indices of
# these strides among the strides of 2, from the stem on.
StridePlan = tuple[tuple[int, tuple[int, ...]], ...]
OUTPUT_STRIDES = (8, 16, 32)
BOTH_ENDS: StridePlan = ((32, (0, 1, -1)), (64, (0, -1)))  # IGCV3, MobileNetV2: 32 and 64 pixels end at 8 x 8
EARLY: StridePlan = ((32, (0, 1)), (64, (0,)))  # IGCV1 and IGCV2 as built for ImageNet


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
        drop_path_rate: probability that training skips the layers next to the shortcut of the last block, per image;
            it increases linearly over the blocks, from 0 in the first block.
        output_stride: largest total stride of the network: 8, 16 or 32. The last stages have dilated convolutions
            instead of the strides beyond it. None: all strides.
    """

    num_classes: int = 1000
    input_size: int | None = None
    in_chans: int = 3
    global_pool: str = "avg"
    drop_rate: float = 0.0
    strides: tuple[int, ...] | None = None
    drop_path_rate: float = 0.0
    output_stride: int | None = None

    def __post_init__(self) -> None:
        for field, smallest in (("num_classes", 0), ("input_size", 1), ("in_chans", 1)):
            value = getattr(self, field)
            if value is not None and value < smallest:
                raise InputError(f"{field}: got {value}, expected an integer >= {smallest}")
        if not 0 <= self.drop_path_rate < 1:
            raise InputError(f"drop_path_rate: got {self.drop_path_rate}, expected a number >= 0 and < 1")
        if self.output_stride not in (None, *OUTPUT_STRIDES):
            raise InputError(f"output_stride: got {self.output_stride}, expected 8, 16 or 32")


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
        strides: total stride of the stem, then the stride of each stage, also of stages that are dilated instead.
        reduction: total stride of the network: the ratio of the image size to the size of the last feature map.
        feature_info: timm's list of the feature levels, one per resolution.
        grad_checkpointing: whether the backward pass computes the blocks again instead of storing their activations.
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
        self.feature_info = feature_levels(widths, strides, options.output_stride)
        self.reduction: int = self.feature_info[-1]["reduction"]
        if options.input_size is not None and options.input_size < self.reduction:
            raise InputError(
                f"input_size: got {options.input_size}, expected at least {self.reduction}, the product of the "
                f"strides {strides_text(strides)}"
            )
        assert options.input_size is not None  # the builder sets the size of its family
        self.input_size, self.in_chans = options.input_size, options.in_chans
        if options.output_stride is not None:
            dilate(stages, strides, options.output_stride)
        if options.drop_path_rate:
            drop_paths(stages, options.drop_path_rate)
        self.grad_checkpointing = False
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
        if not torch.jit.is_scripting():
            self._check_size(x)
        x = self.stem(x)
        if not torch.jit.is_scripting() and self.grad_checkpointing:
            return self.head(checkpointed(self.stages, x))
        return self.head(self.stages(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of feature levels, with timm's arguments.

        Args:
            x: images (N, in_chans, H, W).
            indices: the number of the last levels, or indices into `feature_info`; None: all levels.
            norm: no effect: every stage ends with its batch norm.
            stop_early: skip the stages after the last of these levels.
            output_fmt: "NCHW", the shape of the features.
            intermediates_only: return the features only.

        Returns:
            The features in the order of the network, or (final, features), where `final` is the unpooled output of the
            last computed layer; that is `forward_features(x)` if no stage was skipped.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt: got '{output_fmt}', expected 'NCHW'")
        ends = self._level_ends(indices)
        self._check_size(x)
        x, features = self.stem(x), []
        for i, stage in enumerate(self.stages[: ends[-1] + 1] if stop_early else self.stages):
            x = checkpointed(stage, x) if self.grad_checkpointing else stage(x)
            if i in ends:
                features.append(x)
        if intermediates_only:
            return features
        return (x if stop_early and ends[-1] + 1 < len(self.stages) else self.head(x)), features

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the layers that feature levels do not need, with timm's arguments.

        Args:
            indices: the number of the last levels, or indices into `feature_info`.
            prune_norm: no effect on the stages, which end with their batch norms; removes the head.
            prune_head: remove the head and the classifier. They are also removed if a stage is.

        Returns:
            The indices of the levels, counted from the first.
        """
        taken = level_indices("indices", indices, len(self.feature_info))
        stages = self._level_ends(indices)[-1] + 1
        if prune_norm or prune_head or stages < len(self.stages):
            self.stages, self.head = self.stages[:stages], nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[max(taken)]["num_chs"]
            self.reset_classifier(0, "")
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks again in the backward pass, to save memory. Results and batch norms stay the same."""
        self.grad_checkpointing = enable

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits, or the pooled features with `pre_logits`: (N, num_features, h, w) -> (N, num_classes)."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, in_chans, H, W) -> (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def _level_ends(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return the indices of the last stages of feature levels, in the order of the network."""
        taken = level_indices("indices", indices, len(self.feature_info))
        return sorted({int(self.feature_info[i]["module"].rpartition(".")[2]) for i in taken})

    def _check_size(self, x: Tensor) -> None:
        traced = torch.jit.is_tracing() or not isinstance(x, Tensor)  # a trace has no sizes to compare
        if not traced and min(x.shape[-2:]) < self.reduction:
            raise InputError(
                f"image size: got {x.shape[-2]} x {x.shape[-1]} pixels, expected at least {self.reduction} x "
                f"{self.reduction}, the total stride of this network"
            )


def _init_weights(module: nn.Module) -> None:
    """Initialize a layer as in the original code: Gaussian with standard deviation sqrt(2 / fan-in), biases zero.

    Layers on the device "meta" are skipped: they have no values, and drawing would load torch's compiler.
    """
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
