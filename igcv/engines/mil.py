"""Operations of a Core ML package in PyTorch, to check packages everywhere, and to use them without macOS.

MIL is the intermediate language of Core ML. The operations compute in float32 with the weights of the package. Their
results say nothing about Apple's kernels.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igcv.errors import InputError
from igcv.extras import required
from igcv.silence import silent

NO_PADDING = "valid"  # the other padding in use is "custom", with the sizes in `pad`


def _padded(x: Tensor, pad_type: str, pad: Sequence[int], value: float = 0) -> Tensor:
    """Return x with (top, bottom, left, right) more rows and columns of a value."""
    if pad_type == NO_PADDING:
        return x
    assert pad_type == "custom", pad_type
    top, bottom, left, right = pad
    return F.pad(x, (left, right, top, bottom), value=value)


def _conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    return F.conv2d(_padded(x, pad_type, pad), weight, bias, strides, 0, dilations, groups)


def _max_pool(
    x: Tensor, kernel_sizes: list[int], strides: list[int], pad_type: str, pad: list[int], ceil_mode: bool
) -> Tensor:
    return F.max_pool2d(_padded(x, pad_type, pad, -torch.inf), kernel_sizes, strides, ceil_mode=ceil_mode)


def _concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    assert not interleave
    return torch.cat(values, axis)


def _slice(x: Tensor, begin: list[int], end: list[int], end_mask: list[bool]) -> Tensor:
    """Return x[begin:end] along each axis; where the mask is true, up to the end of the axis."""
    limits = zip(begin, end, end_mask, strict=True)
    return x[tuple(slice(first, None if whole else last) for first, last, whole in limits)]


def _split(x: Tensor, axis: int, split_sizes: list[int]) -> tuple[Tensor, ...]:
    return x.split(split_sizes, axis)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "relu": lambda x: x.relu(),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "cast": lambda x, dtype: x,
    "concat": _concat,
    "reshape": lambda x, shape: x.reshape(shape),
    "slice_by_index": _slice,
    "split": _split,
    "transpose": lambda x, perm: x.permute(perm),
    "max_pool": _max_pool,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keep_dims),
    "reduce_max": lambda x, axes, keep_dims: x.amax(axes, keep_dims),
    "softmax": lambda x, axis: x.softmax(axis),
    "classify": lambda probabilities, classes: (classes[int(probabilities.argmax())], probabilities),
}


class MilProgram:
    """Program of a package, which computes all values of one image.

    Args:
        spec: the specification of the package, as `coremltools.utils.load_spec` returns it.
        weights: the folder of its weights.

    Raises:
        InputError: if the program has an operation that is not in `OPERATIONS`.
    """

    def __init__(self, spec: Any, weights: Path) -> None:
        loader = required("coremltools.converters.mil.frontend.milproto.load", "coreml", "coreml")
        with silent():
            program = loader.load(spec, spec.specificationVersion, str(weights))
        (self.input,) = (described.name for described in spec.description.input)
        self.steps = [_Step(op) for op in program.functions["main"].operations if op.op_type != "const"]

    def run(self, image: Tensor) -> dict[str, Any]:
        """Return all values by name, for an image of shape (1, 3, S, S)."""
        values: dict[str, Any] = {self.input: image}
        for step in self.steps:
            step.run(values)
        return values


class _Step:
    """An operation with its constants as tensors, numbers, lists and texts."""

    def __init__(self, op: Any) -> None:
        if op.op_type not in OPERATIONS:
            raise InputError(
                f"igcv cannot run the operation '{op.op_type}' of the package; expected a package written by igcv "
                "export. Export again, or choose another --form."
            )
        self.operation = OPERATIONS[op.op_type]
        self.outputs = [var.name for var in op.outputs]
        given = {name: var for name, var in op.inputs.items() if var is not None}
        self.constants = {n: _constant(v.val) for n, v in given.items() if _is_constant(v)}
        self.reads = {n: _names(v) for n, v in given.items() if not _is_constant(v)}

    def run(self, values: dict[str, Any]) -> None:
        """Compute the outputs from the values, and add them."""
        inputs = {name: _read(values, names) for name, names in self.reads.items()}
        found = self.operation(**inputs, **self.constants)
        values.update(zip(self.outputs, found if isinstance(found, tuple) else (found,), strict=True))


def _is_constant(var: Any) -> bool:
    return not isinstance(var, list | tuple) and var.val is not None


def _names(var: Any) -> Any:
    """Return the name of a value, or the names of several."""
    return [each.name for each in var] if isinstance(var, list | tuple) else var.name


def _read(values: Mapping[str, Any], names: Any) -> Any:
    return [values[name] for name in names] if isinstance(names, list) else values[names]


def _constant(value: Any) -> Any:
    """Return a constant of a program: arrays of numbers as float32 tensors, of integers as lists."""
    if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
        return torch.from_numpy(value.astype(np.float32))
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
