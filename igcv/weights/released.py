"""The released weights, which come with the package: nothing is downloaded."""

from pathlib import Path

from igcv.errors import InputError, unknown

_PACKAGE = Path(__file__).parents[1]
PLACES = (_PACKAGE / "released", _PACKAGE.parent / "models")  # installed, and in a checkout


def released_weights() -> dict[str, Path]:
    """The released weights files by their names, NETWORK.DATA, such as "igcv3_w_025.digits"."""
    return {file.stem: file for place in PLACES for file in sorted(place.glob("*.safetensors"))}


def find_released(name: str) -> Path:
    """The released weights of a network.

    Args:
        name: NETWORK.DATA, or NETWORK alone where it was released for one data set only.

    Raises:
        InputError: there are none, or several.
    """
    files = released_weights()
    found = [known for known in files if name in (known, known.rpartition(".")[0])]
    if len(found) > 1:
        raise InputError(f"there are several released weights of {name}; name one: {', '.join(found)}")
    if not found:
        raise unknown("released weights", name, files, f"there are {', '.join(files) or 'none'}")
    return files[found[0]]
