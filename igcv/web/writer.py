"""Writer of web pages that run a trained network in the visitor's browser: `igcv web`."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from igcv.classifier import Classifier, as_trained, load
from igcv.data import BadImageError, DataSource
from igcv.data.preprocessing import short_side
from igcv.data.sources.spec import is_public, source_name
from igcv.deploy.exporter import Exported, export
from igcv.deploy.int8.comparison import AGREEMENT_IMAGES, agreement_of
from igcv.deploy.samples import evenly, matching_source, numbered, own_source
from igcv.version import __version__
from igcv.web.engine import PACKAGE, VERSION, engine_files
from igcv.weights.hub import public_card
from igcv.writing import built_beside, check_folder, to_json

PAGE = Path(__file__).parent / "page"  # the static files, identical for all networks
DESCRIPTION = "page.json"  # the description that the page reads first; its presence identifies a page
EXAMPLES = 8  # images
# The fastest form in ONNX Runtime Web 1.30.0 with one thread, or indistinguishable from the fastest (IGCV3-D 1.0x at
# 224 px, 0.5x at 32 px, measured alternately in Chromium 156). At 224 px this form takes 0.7 to 0.8 of the time of
# `dense`, and its file stores no zeros. In int8 both forms are equally fast, and this form has the smaller file.
FORM = "group_branches"
LARGEST_PNG = 512 * 512  # pixels of an example; larger images are photographs, stored as JPEG
LONGEST_JPEG = 65_500  # pixels of the longer side, the limit of the JPEG format
PAD_SIDE = 32  # pixels, largest image side with a drawing pad


@dataclass(frozen=True)
class Page:
    """A written web page.

    Attributes:
        folder: folder of the page.
        networks: "name" (float32 or int8), "file" and "bytes" of each network.
        no_int8: why there is no int8 network; empty if there is one.
        examples: number of example images.
        examples_of: name of the examples' data source.
        kept_out: number of possible examples left out because they may be private; 0 with examples or without images.
    """

    folder: Path
    networks: list[dict[str, Any]]
    no_int8: str
    examples: int
    examples_of: str
    kept_out: int


def write_page(
    network: Classifier | str | Path,
    out: str | Path,
    *,
    calibrate: str | None = None,
    examples: bool | None = None,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> Page:
    """Write a static web page with its engine, the network in float32 and int8, and examples.

    The command is `igcv web`.

    Args:
        network: a classifier, or anything that `igcv.load` opens except an exported file.
        out: the folder, created when the page is complete.
        calibrate: data source for int8 calibration; None: the source of the training run, if available and matching.
        examples: put validation images into the page; None: only those of public data sets (digits, CIFAR,
            Tiny-ImageNet), as other images may be private.
        force: replace an existing page.
        say: callback for progress messages.

    Raises:
        InputError: an argument is invalid, the folder cannot be written, or the engine cannot be downloaded.
    """
    classifier, out, say = as_trained(network), Path(out), say or (lambda text: None)
    check_folder(out, "page", (out / DESCRIPTION).is_file(), force)
    source, no_source = own_source(classifier)
    for note in source.notes if source else ():
        say(note)
    calibration, no_int8 = calibration_source(classifier, calibrate, source, no_source)
    engine = engine_files(say)
    with built_beside(out) as folder:
        shutil.copytree(PAGE, folder)
        (folder / "ort").mkdir()
        for file in engine:
            shutil.copy(file, folder / "ort")
        say("exporting the network" + (" in float32 and in int8" if calibration is not None else ""))
        public = Classifier(classifier.model, replace(public_card(classifier.card), source={}))
        networks = write_networks(public, folder, source, calibration)
        shown = list(validation_images(source))
        wanted = examples or (examples is None and source is not None and is_public(source.spec))
        files = write_examples(classifier, shown if wanted else [], folder / "examples")
        described = describe(classifier, networks, files, drawable(source))
        (folder / DESCRIPTION).write_text(to_json(described, indent=1), "utf-8")
    kept_out = len(shown) if examples is None and not wanted else 0
    return Page(out, networks, no_int8, len(files), source.name if source else "", kept_out)


def calibration_source(
    classifier: Classifier, calibrate: str | None, source: DataSource | None, no_source: str
) -> tuple[DataSource | None, str]:
    """Return the calibration images, or None and the reason; the source named by `calibrate` must exist."""
    if calibrate is not None:
        return matching_source(classifier, calibrate), ""
    return source, no_source


def write_networks(
    classifier: Classifier, folder: Path, source: DataSource | None, calibration: DataSource | None
) -> list[dict[str, Any]]:
    """Write float32.onnx and, with calibration images, int8.onnx; verify each against the network."""
    shown = source if source and numbered(source.val) else None
    write = partial(export, classifier, form=FORM, with_preprocessing=True, data=shown)
    plain = write(folder / "float32.onnx")
    networks = [_network(plain)]
    if calibration is not None:
        small = write(folder / "int8.onnx", int8=True, calibrate=calibration, compare_int8=False)
        networks.append(_network(small))
        if shown is not None and shown.val is not None:
            alike = agreement_of(load(plain.file), load(small.file), shown)
            networks[-1] |= {"agreement": alike, "agreement_images": min(len(shown.val), AGREEMENT_IMAGES)}
    return networks


def _network(written: Exported) -> dict[str, Any]:
    return {"name": written.file.stem, "file": written.file.name, "bytes": written.bytes}


def write_examples(
    classifier: Classifier, images: Iterable[tuple[Image.Image, int]], folder: Path
) -> list[dict[str, str]]:
    """Write example images in their original size, without the metadata of their files.

    Returns:
        For each image, "file" (the path inside the page's folder) and "label" (the class name).
    """
    examples = []
    for i, (image, label) in enumerate(images):
        folder.mkdir(exist_ok=True)
        is_jpeg = image.width * image.height > LARGEST_PNG and max(image.size) <= LONGEST_JPEG
        kind = "jpg" if is_jpeg else "png"
        file = folder / f"{i + 1}.{kind}"
        bare = Image.fromarray(np.asarray(image))  # without metadata such as position and date
        bare.save(file, quality=95, subsampling=0)  # JPEG settings, ignored for PNG
        examples.append({"file": f"{folder.name}/{file.name}", "label": classifier.class_names[label]})
    return examples


def validation_images(source: DataSource | None) -> Iterator[tuple[Image.Image, int]]:
    """Yield up to `EXAMPLES` evenly spaced validation images; skip unreadable images."""
    images = numbered(source.val) if source else None
    if images is None:
        return
    for i in evenly(EXAMPLES, len(images)):
        try:
            image, label = images[i]
            image.load()
        except BadImageError:
            continue
        yield image, label


def drawable(source: DataSource | None) -> int | None:
    """Return the image side in pixels if the images are drawable, white strokes on black as in digits, else None."""
    if source is None or source.image_size is None or source.image_size > PAD_SIDE:
        return None
    pixels = [np.asarray(image) for image, _ in validation_images(source)]
    gray = all((p == p[..., :1]).all() and p[0, 0, 0] < 64 and p.mean() < 128 for p in pixels)
    return source.image_size if pixels and gray else None


def describe(
    classifier: Classifier,
    networks: list[dict[str, Any]],
    examples: list[dict[str, str]],
    drawing_side: int | None,
) -> dict[str, Any]:
    """Return the content of page.json, without paths of this machine."""
    card, pre = classifier.card, classifier.preprocessing
    accuracy = {key: card.results[key] for key in ("top1", "top5", "images") if key in card.results}
    data = card.results.get("data") or card.recipe.get("data")
    return {
        "model": card.model,
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
        "data": source_name(str(data)) if data else None,
        "class_names": list(classifier.class_names),
        "preprocessing": {**pre.to_dict(), "short_side": short_side(pre)},
        "networks": networks,
        "accuracy": accuracy if "top1" in accuracy else None,
        "examples": examples,
        "drawing_side": drawing_side,
        "made_with": f"igcv {__version__}, {PACKAGE} {VERSION}",
    }
