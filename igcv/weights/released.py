"""Released weights: the weights files that come with igcv."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
PLACES = (_PACKAGE / "released", _PACKAGE.parent / "released")  # in a wheel, in a checkout


def released_weights() -> dict[str, Path]:
    """Return the released weights files by name, NETWORK.DATA, for example "igcv3_w_025.digits"."""
    return {file.stem: file for place in PLACES for file in sorted(place.glob("*.safetensors"))}
