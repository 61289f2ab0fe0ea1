"""The released weights, which come with the package: nothing is downloaded."""

from pathlib import Path

from igcv.errors import InputError, unknown

_PACKAGE = Path(__file__).parents[1]
# Of several releases of one network the first of these is the default: the one that has seen most kinds of images.
DEFAULTS = ("imagenet", "tinyimagenet", "cifar100", "cifar10", "digits")
PLACES = (_PACKAGE / "released", _PACKAGE.parent / "models")  # installed, and in a checkout


def released_weights() -> dict[str, Path]:
    """The released weights files by their names, NETWORK.DATA, such as "igcv3_w_025.digits"."""
    return {file.stem: file for place in PLACES for file in sorted(place.glob("*.safetensors"))}


def find_released(name: str) -> Path:
    """Return the released weights of a network.

    Args:
        name: NETWORK.DATA, or NETWORK alone: of several releases the first data set in `DEFAULTS` counts.

    Raises:
        InputError: there are none, or several of which none is the default.
    """
    files = released_weights()
    names = [name, *(f"{name}.{data}" for data in DEFAULTS)]
    found = [known for known in names if known in files] or [n for n in files if n.rpartition(".")[0] == name]
    if not found:
        raise unknown("released weights", name, files, f"there are {', '.join(files) or 'none'}")
    if found[0] not in names and len(found) > 1:
        raise InputError(f"there are several released weights of {name}; name one: {', '.join(found)}")
    return files[found[0]]
