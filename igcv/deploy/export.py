"""From a trained network to a file for an engine, compared with it before it counts: `igcv export`."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igcv.classifier import Classifier
from igcv.deploy.compare import Comparison, compare, normalized
from igcv.deploy.engines import ENGINES, Images, required
from igcv.deploy.engines import engine as find_engine
from igcv.deploy.fold import AUTO, fold
from igcv.deploy.folded import FoldedNetwork, Preprocess
from igcv.deploy.quantize import prepared, quantize
from igcv.errors import InputError, unknown
from igcv.weights import Card
from igcv.weights.files import CARD_KEY


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a file is to be.

    Attributes:
        format: "onnx", "openvino" or "torch" (a torch.export program).
        form: how blocks are computed, as for `igcv.fold`; "auto" measures.
        with_preprocessing: take uint8 RGB images (N, S, S, 3) and normalize them inside; else float32 (N, 3, S, S).
        dynamic_size: leave height and width of the images open; the batch always is.
        opset: of ONNX operators; None: a current one.
        batch_size, threads: what "auto" measures with.
        int8: quantize, for ONNX Runtime and OpenVINO; "auto" is "dense" then, since the integer kernels of both are
            slow with grouped layers.
    """

    format: str
    form: str = "auto"
    with_preprocessing: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    batch_size: int = 1
    threads: int | None = None
    int8: bool = False


def export(
    classifier: Classifier,
    out: Path,
    settings: Settings,
    pixels: Images,
    calibration: Images | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[FoldedNetwork, Comparison]:
    """Write a trained network as a file for an engine.

    The file is opened in its engine and compared with the network on images; only if they agree it appears at `out`.

    Args:
        classifier: the trained network.
        out: the file to write; an OpenVINO .xml gets a .bin beside it.
        settings: how it is to be.
        pixels: uint8 (N, S, S, 3), images to compare on.
        calibration: the same, images to quantize with; for int8 only.
        say: is told what takes long.

    Returns:
        The folded network and how the file compares.

    Raises:
        InputError: for anything the user can mend, or if the file computes something else.
    """
    check_target(out, settings)
    assert settings.int8 == (calibration is not None)
    pre = classifier.preprocessing
    if settings.form == AUTO and not settings.int8:
        say("looking for the fastest form on this machine (minutes at most; remembered for the next time)")
    folded = folded_for(classifier, settings)
    if calibration is not None:
        folded = prepared(folded, normalized(calibration, pre))
    network = nn.Sequential(Preprocess(pre.mean, pre.std), folded) if settings.with_preprocessing else folded
    inputs = normalized(pixels, pre)
    given = pixels if settings.with_preprocessing else inputs
    metadata = {CARD_KEY: exported_card(classifier.card, folded, settings).to_json()}

    def write(path: Path) -> None:
        example = torch.from_numpy(given[:1])
        if settings.format == "torch":
            _save_program(network.eval(), example, path, settings, metadata)
            return
        model = _onnx_model(network.eval(), example, settings, metadata)
        if calibration is not None:
            model = quantize(
                model, calibration if settings.with_preprocessing else normalized(calibration, pre)
            )
        if settings.format == "openvino":
            _save_openvino(model, path, metadata)
        else:
            path.write_bytes(model.SerializeToString())

    def check(path: Path) -> Comparison:
        session = find_engine(settings.format).open(path, settings.threads)
        found = compare(classifier.model, session, inputs, given)
        limit = float("inf") if settings.int8 else found.limit
        if not found.error < limit:
            raise InputError(
                f"the file differs from the network by {found.error:.1e} of the largest logit, more than "
                f"{limit:.1e}; it was not kept. Try another --form, or report this"
            )
        return found

    return folded, write_checked(out, write, check)


def folded_for(classifier: Classifier, settings: Settings) -> FoldedNetwork:
    """The network in the form that a file of these settings has."""
    form = "dense" if settings.int8 and settings.form == AUTO else settings.form
    return fold(
        classifier.model.to("cpu"),
        form,
        engine=settings.format,
        batch_size=settings.batch_size,
        threads=settings.threads,
    )


def check_target(out: Path, settings: Settings) -> None:
    """Raise InputError unless a file of these settings can be written at `out`."""
    if settings.format not in ENGINES:
        raise unknown("format", settings.format, ENGINES)
    if settings.format == "torch" and (settings.int8 or settings.opset is not None):
        what = "int8" if settings.int8 else "opset"
        raise InputError(
            f"the format 'torch' has no {what} here; leave it out, or give --format onnx or openvino"
        )
    suffix = find_engine(settings.format).suffix
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the file to write, for example {out / f'network{suffix}'}")
    if out.suffix != suffix:
        raise InputError(
            f"{out} does not end in {suffix}, as files of the format '{settings.format}' do; "
            f"call it {out.with_suffix(suffix)}"
        )
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}; make it first")
    for path in files_of(out):
        if path.exists():
            raise InputError(f"{path} exists already; choose another name or remove it")


def files_of(out: Path) -> list[Path]:
    """The files of an export."""
    return [out, out.with_suffix(".bin")] if out.suffix == ".xml" else [out]


def write_checked(out: Path, write: Callable[[Path], None], check: Callable[[Path], Any]) -> Any:
    """Write in a folder beside `out`, check, and only then move to `out`; gives what `check` gives."""
    with built_beside(out) as temporary:
        write(temporary)
        return check(temporary)


@contextmanager
def built_beside(out: Path) -> Iterator[Path]:
    """A path of the same name in a folder beside `out`; when all went well, what lies there moves, `out` last."""
    try:
        with tempfile.TemporaryDirectory(prefix=".igcv-", dir=out.parent) as folder:
            yield Path(folder) / out.name
            for source in sorted(Path(folder).iterdir(), key=lambda path: path.name == out.name):
                os.replace(source, out.with_name(source.name))
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror}; free some space or choose another place"
        ) from error


def exported_card(card: Card, folded: FoldedNetwork, settings: Settings) -> Card:
    """The card that travels with the file: it says as well how the file was made."""
    made = {**asdict(settings), "forms": folded.forms, "vector_width": folded.vector_width}
    return replace(card, source={**card.source, "export": made})


def _onnx_model(
    network: nn.Module, example: torch.Tensor, settings: Settings, metadata: dict[str, str]
) -> Any:
    required("onnx", "onnx")
    from igcv.deploy.onnx_graph import OPSET, onnx_graph

    opset = OPSET if settings.opset is None else settings.opset
    return onnx_graph(network, example, opset=opset, dynamic_size=settings.dynamic_size, metadata=metadata)


def _save_openvino(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """An ONNX model as OpenVINO IR, in full precision."""
    ov = required("openvino", "openvino")
    converted = ov.Core().read_model(model.SerializeToString())
    for key, value in metadata.items():
        converted.set_rt_info(value, key)
    ov.save_model(converted, str(path), compress_to_fp16=False)


def _save_program(
    network: nn.Module, example: torch.Tensor, path: Path, settings: Settings, metadata: dict[str, str]
) -> None:
    """A torch.export program."""
    dims: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if settings.dynamic_size:
        first = 1 if settings.with_preprocessing else 2
        dims |= {first: torch.export.Dim.DYNAMIC, first + 1: torch.export.Dim.DYNAMIC}
    examples = torch.cat([example, example])  # with one image, the batch would be taken to be always one
    program = torch.export.export(network, (examples,), dynamic_shapes=(dims,))
    torch.export.save(program, path, extra_files=metadata)
