"""Conversion of MXNet, pytorchcv, torchvision and timm checkpoints to classifiers, and of weights to MXNet and timm."""

import os
from collections.abc import Sequence
from pathlib import Path

from igcv.classifier import Classifier, as_trained, load
from igcv.errors import InputError
from igcv.weights.card import CARD_KEY
from igcv.weights.files import read_metadata, save_weights
from igcv.weights.foreign.mxnet import checkpoint_arrays, read_checkpoint
from igcv.weights.foreign.mxnet_files import write_params
from igcv.weights.foreign.torch_files import PICKLES
from igcv.weights.hub import check_hub_folder, write_hub_folder
from igcv.weights.pretrained import identified, read_torch, weights_names
from igcv.writing import check_absent

FOREIGN = (".params", ".zip", ".safetensors", *PICKLES)  # endings of checkpoints of other frameworks
FOLDER = ""  # a folder for timm has no ending


def convert(
    source: str | Path,
    target: str | Path,
    *,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
    force: bool = False,
) -> Classifier:
    """Convert a checkpoint of another framework to safetensors, weights of igcv to MXNet, or either for timm.

    The command is `igcv convert`. A folder for timm has `model.safetensors`, `config.json` and a model card,
    `README.md`. `timm.create_model("local-dir:OUT", pretrained=True)` opens the folder once igcv is imported, and the
    Hugging Face Hub takes the folder. timm opens the network, and it is compared, before the folder appears.

    Args:
        source: MXNet's X-0000.params; a .pth, .pth.zip or .safetensors file of pytorchcv, torchvision or timm; a run
            folder, weights of igcv, or the name of weights, e.g. igcv3_d_100.imagenet.
        target: the file to write, OUT.safetensors or OUT-0000.params; or a folder for timm: a name without an
            ending, or with a slash at the end, OUT/.
        symbol: see `from_mxnet`; only for a conversion from MXNet.
        input_size: see `from_mxnet`; only for a checkpoint of another framework.
        strides: see `from_mxnet`; only for a checkpoint of another framework.
        force: replace an existing file or folder for timm.

    Returns:
        The converted network.

    Raises:
        InputError: a file cannot be read, the files do not fit each other, or the conversion is not supported.
    """
    named = str(source) in weights_names() and not Path(source).exists()
    kind = FOLDER if str(target).endswith(("/", os.sep)) else Path(target).suffix
    source, target = Path(source), Path(target)
    if kind == FOLDER:
        check_hub_folder(target, force)
    else:
        check_absent(target, force)
    ours = named or (kind == FOLDER and (source.suffix not in FOREIGN or _has_card(source)))
    readable = ours or kind == ".params" or source.suffix in FOREIGN
    if kind not in (".safetensors", ".params", FOLDER) or not readable:
        raise InputError(
            f"cannot convert '{source}' to '{target}'. Give X.params, X.pth or X.safetensors of another project, or "
            "a weights name, to write OUT.safetensors. Give weights of igcv to write OUT.params. Give either to write "
            "OUT/, a folder for timm"
        )
    if symbol and source.suffix != ".params":
        raise InputError("--symbol is only for conversion from MXNet. Omit --symbol")
    if (input_size or strides) and (ours or kind == ".params"):
        raise InputError(
            "--input-size and --strides are only for checkpoints of other frameworks. Omit both options"
        )
    if kind == ".params":
        return to_mxnet(source, target)
    converted = as_trained(source) if ours else _from_other(source, symbol, input_size, strides)
    if kind == FOLDER:
        write_hub_folder(target, converted.model, converted.card)
    else:
        save_weights(target, converted.model.state_dict(), converted.card)
    return converted


def _from_other(
    source: Path, symbol: str | Path | None, input_size: int | None, strides: Sequence[int] | None
) -> Classifier:
    """Read a checkpoint of another framework by its ending."""
    if source.suffix == ".params":
        return from_mxnet(source, symbol, input_size, strides)
    return from_torch(source, input_size, strides)


def _has_card(source: Path) -> bool:
    """Return whether a file is weights of igcv; False for a file of another format."""
    return source.suffix == ".safetensors" and CARD_KEY in read_metadata(source)


def from_torch(
    file: str | Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> Classifier:
    """Convert a checkpoint of pytorchcv (IGCV3), torchvision or timm (MobileNetV2).

    Nothing in the file is executed. Files listed by `igcv models --pretrained` are recognized by their checksum, and
    their cards have class names. Any other card has the usual preprocessing of the project and no class names.

    Args:
        file: a .pth file with a state_dict, a .zip archive of such a file, or a .safetensors file of timm.
        input_size: see `from_mxnet`.
        strides: see `from_mxnet`.

    Raises:
        InputError: the file cannot be read or is from igcv, no catalog network matches its tensors, or tensors are
            missing or unexpected (the message lists both).
    """
    network, card = read_torch(Path(file), input_size, strides)
    return Classifier(network.eval(), card)


def from_mxnet(
    params: str | Path,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
) -> Classifier:
    """Convert an MXNet checkpoint.

    Args:
        params: the `-0000.params` file; float16 and float64 weights become float32.
        symbol: the `-symbol.json` file, to check its layers against the network's (see `check_graph`).
        input_size: side in pixels of the training images; None: 224, or 32 for CIFAR networks.
        strides: total stride of the stem, then the stride of each stage; None: the catalog's strides for
            `input_size`. A checkpoint does not record strides, and other projects may use different ones for small
            images.

    Raises:
        InputError: a file cannot be read, no catalog network matches its tensors, or tensors are missing or
            unexpected (the message lists both).
    """
    network, card = read_checkpoint(Path(params), symbol, input_size, strides)
    return Classifier(network.eval(), identified(card, Path(params)))


def to_mxnet(weights: str | Path, out: str | Path) -> Classifier:
    """Write weights of igcv to a `.params` file, with the tensors in MXNet's order.

    Args:
        weights: a run folder or a .safetensors file written by igcv.
        out: the file to write.

    Returns:
        The written network.

    Raises:
        InputError: the weights cannot be read, or their network is an IGCV2, which has no tensor names in MXNet.
    """
    trained = load(weights)
    if trained.card.model.startswith("igcv2"):
        raise InputError(
            f"'{weights}': got {trained.card.model}, expected IGCV1, IGCV3 or MobileNetV2. MXNet has no names for IGCV2"
        )
    write_params(out, checkpoint_arrays(trained.model))
    return trained
