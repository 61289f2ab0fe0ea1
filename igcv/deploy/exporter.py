"""The entrance of exporting: opens what is needed, writes the file, compares it and reports: `igcv.export`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igcv.classifier import Classifier, as_trained
from igcv.data import DataSource
from igcv.data.classes import NAME
from igcv.deploy.compare import Comparison
from igcv.deploy.folding.plan import AUTO
from igcv.deploy.int8.comparison import beside_float32
from igcv.deploy.samples import matching_source, own_source, sample_pixels
from igcv.deploy.write import check_target, write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.deploy.writers.table import format_of
from igcv.engines.opened import size_of
from igcv.errors import InputError

COMPARED, CALIBRATED = 16, 256  # images to compare on, and to quantize with


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        file: where; an OpenVINO .xml has a .bin beside it.
        bytes: of all its files together.
        comparison: how its logits compare with the trained network's.
        compared_on: the images of the comparison.
        forms: how each block is computed, by its name in the trained network.
        vector_width: see `igcv.deploy.Plan`.
        int8: the file beside a float32 one (see `igcv.deploy.int8.comparison.beside_float32`); None if it is not int8,
            or nobody asked.
    """

    file: Path
    bytes: int
    comparison: Comparison
    compared_on: str
    forms: dict[str, str]
    vector_width: int
    int8: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures under plain names."""
        return {
            "file": str(self.file),
            "bytes": self.bytes,
            "images": self.comparison.images,
            "on": self.compared_on,
            "error": self.comparison.error,
            "agreement": self.comparison.agreement,
            "forms": self.forms,
            "vector_width": self.vector_width,
            **({"int8": self.int8} if self.int8 is not None else {}),
        }


def export(
    network: Classifier | str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    form: str | None = None,
    int8: bool = False,
    calibrate: str | DataSource | None = None,
    data: str | DataSource | None = None,
    match: str = NAME,
    with_preprocessing: bool = False,
    dynamic_size: bool = False,
    opset: int | None = None,
    batch_size: int = 1,
    threads: int = 1,
    compare_int8: bool = True,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> Exported:
    """Write a trained network as a file for an inference engine, and compare it with the network; `igcv export`.

    Batch norms and permutations are gone from the file. It appears only if it computes what the network computes.

    Args:
        network: a classifier, which stays as it is, or what `igcv.load` opens.
        out, force: the file to write, and whether to replace one that is there.
        format: "onnx", "openvino" or "torch" (torch.export); None: by the ending of `out`.
        form: how blocks are computed; None or "auto" measures on this machine; see `igcv.fold`.
        int8, calibrate: quantize to 8 bits, for ONNX Runtime and OpenVINO, with these images; None: those of the run.
        data: images to compare on; None: those of the training run where they fit the network, else two photographs.
        match: how classes of these images are matched with the network's: by "name", in whatever order, or by "order".
        with_preprocessing: take uint8 RGB images (N, S, S, 3) and normalize inside; else float32 (N, 3, S, S).
        dynamic_size: leave height and width open, as the batch always is.
        opset: version of the ONNX operators; None: a current one.
        batch_size, threads: what "auto" measures with, and what an int8 file is timed with.
        compare_int8: with `int8`, measure accuracy, size and time beside a float32 file, which takes a while.
        say: callback for progress messages and for what is done without.

    Raises:
        InputError: for anything the user can fix, or if the file computes something else.
    """
    classifier, out, say = as_trained(network), Path(out), say or _say_nothing
    settings = ExportSettings(
        format=format_of(format, out),
        form=form or AUTO,
        with_preprocessing=with_preprocessing,
        dynamic_size=dynamic_size,
        opset=opset,
        batch_size=batch_size,
        threads=threads,
        int8=int8,
    )
    check_target(out, settings, force)
    calibration = _images_to_quantize(classifier, calibrate, match, int8)
    source = images_to_compare(classifier, data, match, say)
    written = _written(classifier, out, settings, source, calibration, say)
    if not (int8 and compare_int8):
        return written
    say("quantized; accuracy, size and time follow beside float32")
    return replace(written, int8=beside_float32(classifier, out, settings, source))


def _images_to_quantize(
    classifier: Classifier, calibrate: str | DataSource | None, match: str, int8: bool
) -> DataSource | None:
    """Return the images that `calibrate` names, or those of the training run; None where nothing is quantized."""
    if int8:
        return matching_source(classifier, calibrate, match)
    if calibrate is not None:
        raise InputError("--calibrate names images to quantize with; add --int8")
    return None


def _written(
    classifier: Classifier,
    out: Path,
    settings: ExportSettings,
    source: DataSource | None,
    calibration: DataSource | None,
    say: Callable[[str], None],
) -> Exported:
    """Calibrate, write and compare."""
    pre = classifier.preprocessing
    calibrated = sample_pixels(calibration, pre, CALIBRATED, train=True) if calibration else None
    pixels = sample_pixels(source, pre, COMPARED)
    folded, comparison = write_compared(classifier, out, settings, pixels, calibrated, say)
    return Exported(
        file=out,
        bytes=size_of(out),
        comparison=comparison,
        compared_on=source.name if source else "two photographs",
        forms=folded.forms,
        vector_width=folded.vector_width,
    )


def images_to_compare(
    classifier: Classifier, data: str | DataSource | None, match: str, say: Callable[[str], None]
) -> DataSource | None:
    """Return the images that `data` names, or those of the training run; None where these cannot serve."""
    if data is not None:
        return matching_source(classifier, data, match)
    source, why = own_source(classifier, match)
    if source is None and classifier.card.recipe.get("data"):
        say(f"without the images of the training run: {why}")
    for note in source.notes if source else ():
        say(note)
    return source


def _say_nothing(text: str) -> None:
    """For nobody."""
