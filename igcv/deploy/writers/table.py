"""Table of the export formats. The readers, in `igcv.engines`, do not need the writers."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from igcv.engines.table import ENGINES
from igcv.errors import InputError, unknown
from igcv.extras import required


class Writer(NamedTuple):
    """Writer of a format.

    Attributes:
        place: the function, as "module:name"; imported on first use, because it may need packages of an extra.
        package: the package that the writer needs in addition to the engine.
        from_onnx: whether the writer starts from an ONNX graph, which has an opset and can be quantized.
    """

    place: str
    package: str
    from_onnx: bool

    def load(self) -> Callable[..., Any]:
        """Return the function.

        Raises:
            InputError: if the package is missing; the message gives the install command.
        """
        required(self.package, self.package, "deploy")
        module, _, name = self.place.partition(":")
        return getattr(import_module(f"igcv.deploy.writers.{module}"), name)


WRITERS = {
    "torch": Writer("program:write_program", "torch", from_onnx=False),
    "onnx": Writer("onnx:write_onnx", "onnx", from_onnx=True),
    "openvino": Writer("openvino:write_openvino", "onnx", from_onnx=True),
}


def format_of(name: str | None, out: Path) -> str:
    """Return the name of the format, inferred from the suffix of the output file if `name` is None.

    Raises:
        InputError: if `name` is unknown, or no format has this suffix.
    """
    if name is None:
        found = next((known for known in WRITERS if ENGINES[known].suffix == out.suffix), None)
        if found is None:
            raise InputError(
                f"cannot infer the format from '{out}'; expected .onnx, .xml or .pt2. "
                "Change the file name or give --format."
            )
        return found
    if name not in WRITERS:
        raise unknown("format", name, WRITERS)
    return name
