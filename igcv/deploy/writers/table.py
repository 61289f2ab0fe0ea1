"""The formats of exported files: one row each. Reading one (`igcv.engines`) never needs its writer."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from igcv.engines.table import ENGINES
from igcv.errors import InputError, unknown
from igcv.extras import required


class Writer(NamedTuple):
    """How a format is written.

    Attributes:
        place: the function, as "module:name"; imported when it is needed, as it may need packages of an extra.
        package: what it needs besides the engine.
        from_onnx: whether the file is made of an ONNX graph, which can be quantized and has an opset.
    """

    place: str
    package: str
    from_onnx: bool

    def load(self) -> Callable[..., Any]:
        """The function; InputError with the command that installs its package, if that is missing."""
        required(self.package, self.package, "deploy")
        module, _, name = self.place.partition(":")
        return getattr(import_module(f"igcv.deploy.writers.{module}"), name)


WRITERS = {
    "torch": Writer("program:write_program", "torch", from_onnx=False),
    "onnx": Writer("onnx:write_onnx", "onnx", from_onnx=True),
    "openvino": Writer("openvino:write_openvino", "onnx", from_onnx=True),
}


def format_of(name: str | None, out: Path) -> str:
    """Return a format by its name, or else by the ending of the file to write.

    Raises:
        InputError: for another name, or an ending of no format.
    """
    if name is None:
        found = next((known for known in WRITERS if ENGINES[known].suffix == out.suffix), None)
        if found is None:
            raise InputError(
                f"{out} does not tell the format; end it in .onnx, .xml or .pt2, or add --format"
            )
        return found
    if name not in WRITERS:
        raise unknown("format", name, WRITERS)
    return name
