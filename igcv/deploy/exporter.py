"""The function `igcv.export`, which writes a file for an inference engine and compares it with the network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igcv.classifier import Classifier, as_trained
from igcv.data import DataSource
from igcv.data.classes import NAME
from igcv.deploy.compare import Comparison
from igcv.deploy.int8.comparison import beside_float32
from igcv.deploy.samples import matching_source, own_source, sample_pixels
from igcv.deploy.write import check_target, write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.deploy.writers.table import WRITERS, format_of
from igcv.engines.opened import size_of
from igcv.engines.table import NOTES
from igcv.errors import InputError

COMPARED, CALIBRATED = 16, 256  # number of images for the comparison, and for calibration


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        file: path of the file. An OpenVINO .xml file has a .bin file of the same name.
        bytes: total size of the files of the export, in bytes.
        comparison: comparison of its logits with the logits of the trained network.
        compared_on: name of the images of the comparison.
        forms: the form of each block, by the name of the block in the trained network.
        vector_width: see `igcv.deploy.Plan`.
        int8: comparison with a float32 file (see `igcv.deploy.int8.comparison.beside_float32`); None for a float32
            export, or with compare_int8=False.
    """

    file: Path
    bytes: int
    comparison: Comparison
    compared_on: str
    forms: dict[str, str]
    vector_width: int
    int8: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary of plain values."""
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
    float16: bool = False,
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
    """Write a trained network as a file for an inference engine; this is `igcv export`.

    The export folds batch norms into the convolutions and, except in the form "literal", permutations too. It then
    compares the logits of the file with the logits of the network. If a float32 file differs beyond the tolerance, the
    export fails and leaves no file. An int8 file fails only for non-finite logits or a wrong shape.

    Args:
        network: a classifier, or anything that `igcv.load` opens except an exported file. The classifier is not
            changed.
        out: the file to write.
        force: replace an existing file.
        format: a name in `igcv.deploy.writers.table.WRITERS`: "onnx", "openvino", "torch" (torch.export), "litert",
            "ncnn", "executorch" or "coreml" (Core ML); None: inferred from the suffix of `out`.
        form: the form of the blocks (see `igcv.fold`). "auto" measures the forms on this machine. None: "auto" for
            ONNX, OpenVINO and torch.export; for the other formats a form that was fastest on x86,
            except for Core ML, where no form was measured.
        int8: quantize to int8, for ONNX Runtime and OpenVINO.
        calibrate: calibration images for int8; None: the images of the training run.
        float16: store the weights in 16 bits, for LiteRT, ncnn and Core ML. A Core ML package then also computes in
            16 bits.
        data: images for the comparison; None: the images of the training run if available, else two photographs.
        match: how to match the classes of these images with the classes of the network: by "name" or by "order".
        with_preprocessing: take uint8 RGB images (N, S, S, 3) and normalize them inside the file; otherwise the file
            takes float32 images (N, 3, S, S). A Core ML package always includes the preprocessing.
        dynamic_size: make the height and width of the images dynamic, for ONNX, OpenVINO and torch.export. Their
            batch size is always dynamic.
        opset: version of the ONNX operators; None: the default of igcv.
        batch_size: images per batch in the measurements of "auto" and of int8 files. A LiteRT or ExecuTorch file
            takes exactly this number of images at once.
        threads: number of threads in these measurements.
        compare_int8: with `int8`, also compare accuracy, size and latency with a float32 file. This takes minutes.
        say: callback for progress messages and notes.

    Raises:
        InputError: if an argument is invalid, or the file differs from the network beyond the tolerance.
    """
    classifier, out, say = as_trained(network), Path(out), say or _say_nothing
    format = format_of(format, out)
    settings = ExportSettings(
        format=format,
        form=form or WRITERS[format].form(classifier.card.input_size),
        with_preprocessing=with_preprocessing,
        dynamic_size=dynamic_size,
        opset=opset,
        batch_size=batch_size,
        threads=threads,
        int8=int8,
        float16=float16,
    )
    check_target(out, settings, force)
    calibration = _images_to_quantize(classifier, calibrate, match, int8)
    source = images_to_compare(classifier, data, match, say)
    written = _written(classifier, out, settings, source, calibration, say)
    if format in NOTES:
        say(NOTES[format])
    if not (int8 and compare_int8):
        return written
    say("quantized; comparing accuracy, size and latency with float32")
    return replace(written, int8=beside_float32(classifier, out, settings, source))


def _images_to_quantize(
    classifier: Classifier, calibrate: str | DataSource | None, match: str, int8: bool
) -> DataSource | None:
    """Return the images of `calibrate`, or of the training run by default; None without `int8`."""
    if int8:
        return matching_source(classifier, calibrate, match)
    if calibrate is not None:
        raise InputError("--calibrate needs --int8. Add --int8 or omit --calibrate.")
    return None


def _written(
    classifier: Classifier,
    out: Path,
    settings: ExportSettings,
    source: DataSource | None,
    calibration: DataSource | None,
    say: Callable[[str], None],
) -> Exported:
    """Sample the images, write the file and compare it with the network."""
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
    """Return the images of `data`, or of the training run by default; None if the latter are unavailable."""
    if data is not None:
        return matching_source(classifier, data, match)
    source, why = own_source(classifier, match)
    if source is None and classifier.card.recipe.get("data"):
        say(f"continuing without the images of the training run: {why}")
    for note in source.notes if source else ():
        say(note)
    return source


def _say_nothing(text: str) -> None:
    """Ignore a progress message."""
