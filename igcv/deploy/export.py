"""From a trained network to a file for an engine, compared with it before it counts: `igcv export`."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igcv.classifier import Classifier
from igcv.deploy.compare import Comparison, compare, normalized
from igcv.deploy.engines import ENGINES, Images, required
from igcv.deploy.engines import engine as find_engine
from igcv.deploy.fold import fold
from igcv.deploy.folded import FoldedNetwork, Preprocess
from igcv.errors import InputError, unknown
from igcv.weights import Card
from igcv.weights.files import CARD_KEY

FORMATS = tuple(ENGINES)


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
    """

    format: str
    form: str = "auto"
    with_preprocessing: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    batch_size: int = 1
    threads: int | None = None


def export(
    classifier: Classifier, out: Path, settings: Settings, pixels: Images
) -> tuple[FoldedNetwork, Comparison]:
    """Write a trained network as a file for an engine.

    The file is opened in its engine and compared with the network on images; only if they agree it appears at `out`.

    Args:
        classifier: the trained network.
        out: the file to write; an OpenVINO .xml gets a .bin beside it.
        settings: how it is to be.
        pixels: uint8 (N, S, S, 3), images to compare on.

    Returns:
        The folded network and how the file compares.

    Raises:
        InputError: for anything the user can mend, or if the file computes something else.
    """
    check_target(out, settings.format)
    if settings.opset is not None and settings.format == "torch":
        raise InputError("opset is a setting of ONNX; leave it out with the format 'torch'")
    folded = fold(
        classifier.model,
        settings.form,
        engine=settings.format,
        batch_size=settings.batch_size,
        threads=settings.threads,
    )
    pre = classifier.preprocessing
    network = nn.Sequential(Preprocess(pre.mean, pre.std), folded) if settings.with_preprocessing else folded
    inputs = normalized(pixels, pre)
    given = pixels if settings.with_preprocessing else inputs
    metadata = {CARD_KEY: exported_card(classifier.card, folded, settings).to_json()}

    def write(path: Path) -> None:
        WRITERS[settings.format](network.eval(), torch.from_numpy(given[:1]), path, settings, metadata)

    def check(path: Path) -> Comparison:
        session = find_engine(settings.format).open(path, settings.threads)
        found = compare(classifier.model, session, inputs, given)
        if found.error > found.limit:
            raise InputError(
                f"the file differs from the network by {found.error:.1e} of the largest logit, more than "
                f"{found.limit:.1e}; it was not kept. Try another --form, or report this"
            )
        return found

    return folded, write_checked(out, write, check)


def check_target(out: Path, format: str) -> None:
    """Raise InputError unless a file of this format can be written at `out`."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    suffix = find_engine(format).suffix
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the file to write, for example {out / f'network{suffix}'}")
    if out.suffix != suffix:
        raise InputError(
            f"{out} does not end in {suffix}, as files of the format '{format}' do; call it {out.with_suffix(suffix)}"
        )
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}; make it first")
    for path in _files(out):
        if path.exists():
            raise InputError(f"{path} exists already; choose another name or remove it")


def _files(out: Path) -> list[Path]:
    """The files of an export."""
    return [out, out.with_suffix(".bin")] if out.suffix == ".xml" else [out]


def write_checked(out: Path, write: Callable[[Path], None], check: Callable[[Path], Any]) -> Any:
    """Write in a folder beside `out`, check, and only then move to `out`; gives what `check` gives."""
    try:
        with tempfile.TemporaryDirectory(prefix=".igcv-", dir=out.parent) as folder:
            temporary = Path(folder) / out.name
            write(temporary)
            found = check(temporary)
            for source, target in zip(reversed(_files(temporary)), reversed(_files(out)), strict=True):
                os.replace(source, target)
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror}; free some space or choose another place"
        ) from error
    return found


def exported_card(card: Card, folded: FoldedNetwork, settings: Settings) -> Card:
    """The card that travels with the file: it says as well how the file was made."""
    made = {**asdict(settings), "forms": folded.forms, "vector_width": folded.vector_width}
    return replace(card, source={**card.source, "export": made})


def _write_onnx(
    network: nn.Module, example: torch.Tensor, path: Path, settings: Settings, metadata: dict[str, str]
) -> None:
    path.write_bytes(_onnx(network, example, settings, metadata).SerializeToString())


def _onnx(network: nn.Module, example: torch.Tensor, settings: Settings, metadata: dict[str, str]) -> Any:
    required("onnx", "onnx")
    from igcv.deploy.onnx_graph import OPSET, onnx_graph

    opset = OPSET if settings.opset is None else settings.opset
    return onnx_graph(network, example, opset=opset, dynamic_size=settings.dynamic_size, metadata=metadata)


def _write_openvino(
    network: nn.Module, example: torch.Tensor, path: Path, settings: Settings, metadata: dict[str, str]
) -> None:
    save_openvino(_onnx(network, example, settings, {}).SerializeToString(), path, metadata)


def save_openvino(onnx_model: bytes, path: Path, metadata: dict[str, str]) -> None:
    """Write an ONNX model as OpenVINO IR, in full precision."""
    ov = required("openvino", "openvino")
    model = ov.Core().read_model(onnx_model)
    for key, value in metadata.items():
        model.set_rt_info(value, key)
    ov.save_model(model, str(path), compress_to_fp16=False)


def _write_torch(
    network: nn.Module, example: torch.Tensor, path: Path, settings: Settings, metadata: dict[str, str]
) -> None:
    dims: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if settings.dynamic_size:
        first = 1 if settings.with_preprocessing else 2
        dims |= {first: torch.export.Dim.DYNAMIC, first + 1: torch.export.Dim.DYNAMIC}
    examples = torch.cat([example, example])  # with one image, the batch would be taken to be always one
    program = torch.export.export(network, (examples,), dynamic_shapes=(dims,))
    torch.export.save(program, path, extra_files=metadata)


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}
