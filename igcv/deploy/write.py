"""Writing of a trained network to a file for an inference engine, checked against the network."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igcv.cache import unwritable
from igcv.classifier import Classifier
from igcv.data.preprocessing import Preprocessing
from igcv.deploy.choose import choose_int8_plan
from igcv.deploy.compare import Comparison, compare
from igcv.deploy.folding.network import FoldedNetwork, Preprocess
from igcv.deploy.folding.plan import AUTO, foldable_blocks, folded_network
from igcv.deploy.inference import fold
from igcv.deploy.int8.onnx import quantize
from igcv.deploy.int8.prepare import prepared
from igcv.deploy.samples import normalized
from igcv.deploy.writers.settings import ExportSettings, exported_card
from igcv.deploy.writers.table import WRITERS, Batch, check_settings, with_own
from igcv.engines.opened import files_of
from igcv.engines.table import engine as find_engine
from igcv.engines.table import session_to_check
from igcv.errors import InputError
from igcv.models import Network
from igcv.weights.card import CARD_KEY
from igcv.writing import built_beside, check_absent

CHOSEN_WITH = 8  # calibration images for the int8 files that are measured to choose a form


def write_compared(
    classifier: Classifier,
    out: Path,
    settings: ExportSettings,
    pixels: np.ndarray,
    calibration: np.ndarray | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[FoldedNetwork, Comparison]:
    """Write a trained network as a file for an inference engine.

    The file is opened in its engine and compared with the network. The file appears at `out` only if both agree; an
    int8 file only has to give finite logits.

    Args:
        classifier: the trained network.
        out: the file to write or to replace. An OpenVINO .xml file gets a .bin file of the same name.
        settings: settings of the export.
        pixels: images for the comparison, uint8 (N, S, S, 3).
        calibration: calibration images, uint8 (N, S, S, 3), for int8 only.
        say: callback for progress messages.

    Returns:
        The folded network and the comparison.

    Raises:
        InputError: if a setting is invalid, or the file differs from the network beyond the tolerance.
    """
    assert settings.int8 == (calibration is not None)
    pre, settings = classifier.preprocessing, with_own(settings)
    if settings.form == AUTO:
        kept = f"result not cached: {why}" if (why := unwritable()) else "the result is cached"
        say(f"measuring the fastest form on this machine (takes seconds to minutes; {kept})")
    folded = folded_for(classifier, settings, calibration)
    inputs = normalized(pixels, pre)
    given = pixels if settings.with_preprocessing else inputs
    metadata = {CARD_KEY: exported_card(classifier.card, folded, settings).to_json()}

    def write(path: Path) -> None:
        write_network(folded, path, settings, pre, calibration, metadata)

    def check(path: Path) -> Comparison:
        session = session_to_check(settings.format, path, settings.threads)
        found = compare(on_cpu(classifier.model), session, inputs, given)
        whole = rounded(folded, WRITERS[settings.format].rounds_biases) if settings.float16 else None
        expected = found if whole is None else compare(whole, session, inputs, given)
        limit = float("inf") if settings.int8 else expected.limit
        if not expected.error < limit:
            raise InputError(
                f"the file differs from the network by {expected.error:.1e} of the largest logit (limit: {limit:.1e}) "
                "and was deleted. Try another --form, or report a bug."
            )
        return found

    return folded, write_checked(out, write, check)


def rounded(network: nn.Module, biases: bool = False) -> nn.Module:
    """Return a copy of a network with the weights that a float16 file has: rounded, with or without the biases."""
    copy = deepcopy(network)
    for parameter in copy.parameters():
        if biases or parameter.ndim > 1:
            parameter.copy_(parameter.half())
    return copy


def folded_for(
    classifier: Classifier, settings: ExportSettings, calibration: np.ndarray | None
) -> FoldedNetwork:
    """Return the folded network for these export settings."""
    model = on_cpu(classifier.model)
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
        write_network(folded, path, settings, pre, few)

    images = batch if settings.with_preprocessing else normalized(batch, pre)
    plan = choose_int8_plan(model, write, settings.format, images, settings.threads)
    return folded_network(model, foldable_blocks(model), plan)


def on_cpu(model: Network) -> Network:
    """Return the network if it is on the CPU, or a copy on the CPU."""
    return model if next(model.parameters()).device.type == "cpu" else deepcopy(model).to("cpu")


def write_network(
    folded: FoldedNetwork,
    path: Path,
    settings: ExportSettings,
    pre: Preprocessing,
    calibration: np.ndarray | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a folded network as a file, without a check.

    Args:
        folded: the network.
        path: the file. An OpenVINO .xml file gets a .bin file of the same name.
        settings: settings of the export.
        pre: the preprocessing of its images.
        calibration: calibration images, uint8 (N, S, S, 3); None: write float32.
        metadata: texts by name to store in the file.
    """

    def as_given(images: np.ndarray) -> np.ndarray:
        return images if settings.with_preprocessing else normalized(images, pre)

    network: nn.Module = folded if calibration is None else prepared(folded, normalized(calibration, pre))
    if settings.with_preprocessing:
        network = nn.Sequential(Preprocess(pre.mean, pre.std), network)
    count = settings.batch_size if WRITERS[settings.format].batch is Batch.FIXED else 1
    example = torch.from_numpy(as_given(np.zeros((count, pre.input_size, pre.input_size, 3), np.uint8)))
    quantized = {} if calibration is None else {"rewrite": partial(quantize, given=as_given(calibration))}
    write = WRITERS[settings.format].load()
    write(network.eval(), example, path, settings, dict(metadata or {}), **quantized)


def check_target(out: Path, settings: ExportSettings, force: bool = False) -> None:
    """Raise InputError unless a file with these settings can be written at `out`; `force` allows an existing file."""
    check_settings(settings)
    suffix = find_engine(settings.format).suffix
    if out.is_dir() and not (out.suffix == suffix and WRITERS[settings.format].folder):
        raise InputError(
            f"out: got the folder '{out}', expected a file name such as '{out / f'network{suffix}'}'"
        )
    if out.suffix != suffix:
        raise InputError(
            f"out: got '{out}', expected the suffix {suffix} for the format '{settings.format}'. "
            f"Name it {out.with_suffix(suffix)}."
        )
    if not out.parent.is_dir():
        raise InputError(f"folder not found: '{out.parent}'. Create it first.")
    for path in files_of(out):
        check_absent(path, force)


def write_checked(out: Path, write: Callable[[Path], None], check: Callable[[Path], Any]) -> Any:
    """Write to a temporary folder next to `out`, check, then move to `out`. Return the result of `check`."""
    with built_beside(out) as temporary:
        write(temporary)
        return check(temporary)
