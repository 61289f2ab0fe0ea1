"""Table of the export formats. The readers, in `igcv.engines`, do not need the writers."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from igcv.deploy.folding.plan import AUTO
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.table import ENGINES, check_timed
from igcv.errors import InputError, unknown
from igcv.extras import required

LARGEST_SMALL = 64  # pixels; networks for images up to this size keep early strides at 1


class Batch(Enum):
    """Batch size of a file."""

    DYNAMIC = "any"
    FIXED = "set by --batch"
    SINGLE = "1"


class Writer(NamedTuple):
    """Writer of a format.

    Attributes:
        place: the function, as "module:name"; imported on first use, because it may need packages of an extra.
        package: the package that the writer needs in addition to the engine.
        extra: the extra of igcv that installs the package.
        can: the settings in `OPTIONAL` that the format supports.
        batch: the batch size of a file.
        forms: the default form for images of up to `LARGEST_SMALL` pixels, and for larger images.
        includes_preprocessing: whether a file always includes the preprocessing.
        rounds_biases: whether float16 files round the biases too.
        folder: whether an export is a folder.
    """

    place: str
    package: str
    extra: str
    can: tuple[str, ...]
    batch: Batch = Batch.DYNAMIC
    forms: tuple[str, str] = (AUTO, AUTO)
    includes_preprocessing: bool = False
    rounds_biases: bool = False
    folder: bool = False

    def load(self) -> Callable[..., Any]:
        """Return the function.

        Raises:
            InputError: if the package is missing; the message gives the install command.
        """
        required(self.package, self.package, self.extra)
        module, _, name = self.place.partition(":")
        return getattr(import_module(f"igcv.deploy.writers.{module}"), name)

    def form(self, input_size: int) -> str:
        """Return the default form for images of a size in pixels."""
        small, large = self.forms
        return small if input_size <= LARGEST_SMALL else large


# The forms of the mobile engines are at or near the fastest on x86 (studies/benchmarks/results/engines_cpu.md). No time
# was measured on ARM; partial_sums needs 1.5 times the instructions there in float16 in ncnn (studies/results/arm.md).
WRITERS = {
    "torch": Writer("program:write_program", "torch", "deploy", ("with_preprocessing", "dynamic_size")),
    "onnx": Writer(
        "onnx:write_onnx", "onnx", "deploy", ("with_preprocessing", "dynamic_size", "opset", "int8")
    ),
    "openvino": Writer(
        "openvino:write_openvino", "onnx", "deploy", ("with_preprocessing", "dynamic_size", "opset", "int8")
    ),
    "litert": Writer(
        "litert:write_litert",
        "ai_edge_litert",
        "litert",
        ("with_preprocessing", "float16"),
        Batch.FIXED,
        ("sources_group", "sources_group"),
    ),
    "ncnn": Writer(
        "ncnn:write_ncnn", "ncnn", "ncnn", ("float16",), Batch.SINGLE, ("sources_group", "sources_group")
    ),
    "executorch": Writer(
        "executorch:write_executorch",
        "executorch",
        "executorch",
        (),
        Batch.FIXED,
        ("group_branches", "sources_group"),
    ),
    # No form was measured in Core ML: the forms are a guess.
    "coreml": Writer(
        "coreml:write_coreml",
        "coremltools",
        "coreml",
        ("with_preprocessing", "float16"),
        Batch.SINGLE,
        ("group_branches", "group_branches"),
        includes_preprocessing=True,
        rounds_biases=True,
        folder=True,
    ),
}
OPTIONAL = {
    "int8": "--int8",
    "float16": "--float16",
    "opset": "--opset",
    "dynamic_size": "--dynamic-size",
    "with_preprocessing": "--with-preprocessing",
}
ELSEWHERE = {  # what to do instead of an option that only some formats support
    "with_preprocessing": "Normalize the images in your program; the card has mean and standard deviation.",
}


def format_of(name: str | None, out: Path) -> str:
    """Return the name of the format, inferred from the suffix of the output file if `name` is None.

    Raises:
        InputError: if `name` is unknown, or no format has this suffix.
    """
    if name is None:
        found = next((known for known in WRITERS if ENGINES[known].suffix == out.suffix), None)
        if found is None:
            suffixes = ", ".join(ENGINES[known].suffix for known in WRITERS)
            raise InputError(
                f"cannot infer the format from '{out}'; expected one of {suffixes}. "
                "Change the file name or give --format."
            )
        return found
    if name not in WRITERS:
        raise unknown("format", name, WRITERS)
    return name


def with_own(settings: ExportSettings) -> ExportSettings:
    """Return export settings with what the format always includes."""
    inside = settings.with_preprocessing or WRITERS[settings.format].includes_preprocessing
    return replace(settings, with_preprocessing=inside)


def check_settings(settings: ExportSettings) -> None:
    """Raise InputError if a format does not exist or does not support a setting."""
    if settings.format not in WRITERS:
        raise unknown("format", settings.format, WRITERS)
    writer = WRITERS[settings.format]
    for setting, option in OPTIONAL.items():
        if getattr(settings, setting) not in (None, False) and setting not in writer.can:
            others = " or ".join(name for name, other in WRITERS.items() if setting in other.can)
            instead = ELSEWHERE.get(setting, f"Omit it, or give --format {others}.")
            raise InputError(f"the format '{settings.format}' does not support {option}. {instead}")
    if settings.form == AUTO:
        check_timed(settings.format)
    if settings.int8 and settings.float16:
        raise InputError("--int8 and --float16 exclude each other. Give one of them.")
    if writer.batch is Batch.SINGLE and settings.batch_size != 1:
        raise InputError(
            f"batch: got {settings.batch_size}, but a file of the format '{settings.format}' takes one image at a "
            "time. Omit --batch."
        )
