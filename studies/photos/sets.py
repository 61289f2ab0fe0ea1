"""Folders of links to the photos of the study."""

import shutil
from pathlib import Path

from igcv.data.images import Images
from igcv.data.sources.folders import image_files
from igcv.data.sources.open import open_source
from igcv.errors import InputError
from studies.photos.plan import PhotoSet


def laid_out(wanted: PhotoSet, photos: Path, place: Path) -> Path:
    """Return the folder of a set: the original folder, or a folder of links below `place`.

    Raises:
        InputError: photos are missing.
    """
    source = photos / wanted.source
    if not source.is_dir():
        raise InputError(
            f"folder not found: '{source}'. Give the folder that contains {wanted.source} with --photos"
        )
    if not wanted.counts:
        return source
    target = place / wanted.name
    shutil.rmtree(target, ignore_errors=True)
    for kind, count in wanted.counts.items():
        files = image_files(source / kind)
        if len(files) < count:
            raise InputError(
                f"'{source / kind}': got {len(files)} photos, expected {count} or more. Get all photos"
            )
        (target / kind).mkdir(parents=True)
        for file in files[:count]:
            (target / kind / Path(file).name).symlink_to(Path(file).resolve())
    return target


def in_parts(folder: Path, target: Path) -> Path:
    """Return `target` with train/ and validation/ for timm's script, split as igcv splits `folder`."""
    shutil.rmtree(target, ignore_errors=True)
    source = open_source(f"folder:{folder}")
    for part, name in (("train", "train"), ("val", "validation")):
        images: Images = source.part(part)  # type: ignore[assignment]
        for i, label in enumerate(images.labels.tolist()):
            file = Path(images.name(i))
            place = target / name / source.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}{file.suffix}").symlink_to(file.resolve())
    return target
