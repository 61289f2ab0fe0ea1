"""Folders for timm and the Hugging Face Hub: weights, timm's config.json and a model card."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from igcv.data.preprocessing import Preprocessing
from igcv.data.sources.spec import source_name
from igcv.errors import InputError
from igcv.models import Network
from igcv.weights.card import Card
from igcv.weights.files import save_weights
from igcv.writing import built_beside, check_folder, to_json, write_file

WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"
FILES = frozenset((WEIGHTS, CONFIG, README))
TOLERANCE = 1e-5  # largest difference of the outputs by largest output
LICENSES = ("apache-2.0", "bsd-3-clause", "mit")  # those of the known weights, by the names of the Hub


def check_hub_folder(out: Path, force: bool = False) -> None:
    """Raise InputError unless `out` is new, empty, or a folder of `write_hub_folder` that `force` allows to replace."""
    check_folder(out, "network for timm", out.is_dir() and set(os.listdir(out)) <= FILES, force)


def write_hub_folder(out: Path, network: Network, card: Card) -> None:
    """Write a folder that `timm.create_model("local-dir:OUT", pretrained=True)` opens once igcv is imported.

    timm opens the folder before it moves to `out`, and its network must be the same.

    Args:
        out: the folder to write.
        network: the network, on the CPU and in evaluation mode.
        card: the card of the network. The recipe stays out, because it has paths of this machine.

    Raises:
        InputError: timm does not know the network by this name, or the folder cannot be written.
    """
    card = public_card(card)
    config = timm_config(network, card)
    with built_beside(out) as folder:
        folder.mkdir()
        save_weights(folder / WEIGHTS, network.state_dict(), card, {"format": "pt"})
        write_file(folder / CONFIG, f"{to_json(config, indent=2)}\n".encode())
        write_file(folder / README, model_card(out.name, network, card).encode())
        _compare(folder, network)


def public_card(card: Card) -> Card:
    """Return the card without its recipe and the folder of its data, which have paths of this machine."""
    data = card.results.get("data")
    return replace(
        card, recipe={}, results={**card.results, **({} if data is None else {"data": source_name(data)})}
    )


def timm_config(network: Network, card: Card) -> dict[str, Any]:
    """Return the content of config.json: architecture, its arguments, classes, and the preprocessing of the images.

    Raises:
        InputError: timm does not know the network by this name.
    """
    from igcv.weights.timm_names import TIMM_NAMES  # importing timm takes seconds

    if card.model not in TIMM_NAMES:
        raise InputError(
            f"'{card.model}': got a network that igcv does not register with timm, expected one of "
            f"{', '.join(TIMM_NAMES)}. Write a file instead: igcv convert IN OUT.safetensors"
        )
    arguments = {
        "input_size": card.input_size,
        "strides": list(network.strides),
        "multiplier": card.multiplier,
    }
    names = card.class_ids or card.class_names
    return {
        "architecture": card.model,
        "num_classes": card.num_classes,
        "num_features": network.num_features,
        "global_pool": "avg",
        **({"label_names": list(names)} if names else {}),
        **({"label_descriptions": dict(zip(names, card.class_names, strict=True))} if card.class_ids else {}),
        "model_args": {name: value for name, value in arguments.items() if value is not None},
        "pretrained_cfg": _images_config(network, card),
    }


def _images_config(network: Network, card: Card) -> dict[str, Any]:
    """Return timm's configuration of the images and of the layers that depend on them."""
    from igcv.weights.timm_names import input_config, weights_config  # importing timm takes seconds

    images = Preprocessing.from_dict(card.preprocessing)
    return {
        **weights_config(card.model, images, num_classes=card.num_classes, **input_config(network)),
        "crop_mode": "center",
        **({"license": license} if (license := _license(card)) else {}),
    }


def _license(card: Card) -> str:
    """Return the license of the weights by its name on the Hub; empty if unknown."""
    stated = str(card.source.get("license", "")).lower()
    return stated if stated in LICENSES else ""


def model_card(name: str, network: Network, card: Card) -> str:
    """Return the README.md of a folder, with the metadata of the Hub in front."""
    license = _license(card)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {
        "Network": f"{card.model} of igcv, {parameters:,} parameters",
        "Images": f"{card.input_size} x {card.input_size} pixels",
        "Classes": f"{card.num_classes}" + (f": {_some(card.class_names)}" if card.class_names else ""),
        "Accuracy": _accuracy(card.results) or "not recorded",
        "Origin": _origin(card.source) or "not recorded",
        "License": license or "not recorded; state one before you publish the weights",
    }
    front = [
        "tags: [image-classification, timm, igcv]",
        "pipeline_tag: image-classification",
        "library_name: timm",
    ]
    front += [f"license: {license}"] * bool(license)
    rows = "\n".join(f"- **{title}:** {text}" for title, text in facts.items())
    return _README.format(front="\n".join(front), name=name, rows=rows)


def _origin(source: Mapping[str, Any]) -> str:
    """Return the origin of the weights in words; empty if none is recorded."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in source.items())


def _some(names: tuple[str, ...], limit: int = 10) -> str:
    """Return the first names."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _accuracy(results: Mapping[str, Any]) -> str:
    """Return the measured accuracy, and on what; empty if none is recorded."""
    if "top1" not in results:
        return ""
    return (
        f"top-1 {results['top1']:.2f} % of {results.get('images', 0):,} images of "
        f"{results.get('data', 'an unknown data set')}"
    )


_README = """---
{front}
---
# {name}

{rows}

timm opens this folder once igcv is imported, because igcv registers its networks with timm:

```python
import igcv
import timm

model = timm.create_model("local-dir:{name}", pretrained=True).eval()  # or hf-hub:USER/{name}
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```

igcv opens it, too: `igcv.load("{name}")`.
"""


def _compare(folder: Path, network: Network) -> None:
    """Open the folder with timm and compare its network with the one that was written."""
    import timm

    opened = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    wanted, got = network.state_dict(), opened.state_dict()
    same = wanted.keys() == got.keys() and all(torch.equal(got[key], wanted[key].cpu()) for key in wanted)
    images = torch.rand(
        1, 3, network.input_size, network.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        expected, outputs = network(images), opened(images)
    if not same or (outputs - expected).abs().max() > TOLERANCE * expected.abs().max():
        raise InputError(
            f"'{folder.name}': timm {timm.__version__} opens another network than was written. Update timm, or write "
            "OUT.safetensors"
        )
