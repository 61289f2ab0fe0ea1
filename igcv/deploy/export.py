"""From a trained network to a file for an engine, compared with it before it counts: `igcv export`."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igcv.classifier import Classifier
from igcv.data import Preprocessing
from igcv.deploy.choose_int8 import choose_int8_plan
from igcv.deploy.compare import Comparison, compare, normalized
from igcv.deploy.engines import ENGINES, Images, required
from igcv.deploy.engines import engine as find_engine
from igcv.deploy.exported import files_of
from igcv.deploy.fold import AUTO, build_network, fold, foldable_blocks
from igcv.deploy.folded import FoldedNetwork, Preprocess
from igcv.deploy.quantize import prepared, quantize
from igcv.errors import InputError, unknown
from igcv.weights import Card
from igcv.weights.files import CARD_KEY

CHOSEN_WITH = 8  # calibration images in the int8 files that are measured to choose a form


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
        int8: quantize, for ONNX Runtime and OpenVINO; "auto" measures int8 files then.
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
    if settings.form == AUTO:
        say("looking for the fastest form on this machine (minutes at most; remembered for the next time)")
    folded = folded_for(classifier, settings, calibration)
    inputs = normalized(pixels, pre)
    given = pixels if settings.with_preprocessing else inputs
    metadata = {CARD_KEY: exported_card(classifier.card, folded, settings).to_json()}

    def write(path: Path) -> None:
        write_network(folded, path, settings, pre, pixels[:1], calibration, metadata)

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


def folded_for(classifier: Classifier, settings: Settings, calibration: Images | None) -> FoldedNetwork:
    """The network in the form that a file of these settings has."""
    model = classifier.model.to("cpu")
    if calibration is None or settings.form != AUTO:
        return fold(
            model,
            settings.form,
            engine=settings.format,
            batch_size=settings.batch_size,
            threads=settings.threads,
        )
    few = calibration[:CHOSEN_WITH]
    batch = np.resize(few, (settings.batch_size, *few.shape[1:]))
    pre = classifier.preprocessing

    def write(folded: FoldedNetwork, path: Path) -> None:
        write_network(folded, path, settings, pre, few[:1], few)

    images = batch if settings.with_preprocessing else normalized(batch, pre)
    plan = choose_int8_plan(model, write, settings.format, images, settings.threads)
    return build_network(model, foldable_blocks(model), plan)


def write_network(
    folded: FoldedNetwork,
    path: Path,
    settings: Settings,
    pre: Preprocessing,
    pixels: Images,
    calibration: Images | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a folded network as a file, unchecked.

    Args:
        folded: the network.
        path: the file; an OpenVINO .xml gets a .bin beside it.
        settings: how it is to be.
        pre: how its images are normalized.
        pixels: uint8 (1, S, S, 3), an image.
        calibration: uint8 (N, S, S, 3), images to quantize with; None: float32.
        metadata: texts by name that travel with the file.
    """
    metadata = dict(metadata or {})

    def as_given(images: Images) -> Images:
        return images if settings.with_preprocessing else normalized(images, pre)

    network: nn.Module = folded if calibration is None else prepared(folded, normalized(calibration, pre))
    if settings.with_preprocessing:
        network = nn.Sequential(Preprocess(pre.mean, pre.std), network)
    example = torch.from_numpy(as_given(pixels))
    if settings.format == "torch":
        _save_program(network.eval(), example, path, settings, metadata)
        return
    model = _onnx_model(network.eval(), example, settings, metadata)
    if calibration is not None:
        model = quantize(model, as_given(calibration))
    if settings.format == "openvino":
        _save_openvino(model, path, metadata)
    else:
        path.write_bytes(model.SerializeToString())


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
    """An ONNX model as OpenVINO IR, in full precision; conversion computes what does not depend on the images."""
    ov = required("openvino", "openvino")
    converted = ov.convert_model(BytesIO(model.SerializeToString()))
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
