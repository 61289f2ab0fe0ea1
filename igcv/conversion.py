"""Checkpoints of MXNet, pytorchcv, torchvision and timm as classifiers, and the way back to MXNet."""

from collections.abc import Sequence
from pathlib import Path

from igcv.classifier import Classifier, load
from igcv.errors import InputError
from igcv.weights.files import save_weights
from igcv.weights.foreign.mxnet import checkpoint_arrays, read_checkpoint
from igcv.weights.foreign.mxnet_files import write_params
from igcv.weights.foreign.torch_files import PICKLES
from igcv.weights.pretrained import identified, read_torch, weights_names
from igcv.writing import check_absent


def convert(
    source: str | Path,
    target: str | Path,
    *,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
    force: bool = False,
) -> Classifier:
    """Convert a checkpoint of another framework to safetensors, or weights of igcv to an MXNet checkpoint.

    This is `igcv convert`.

    Args:
        source: MXNet's X-0000.params; a .pth, .pth.zip or .safetensors file of pytorchcv, torchvision or timm; a run
            folder, weights of igcv, or the name of weights, e.g. igcv3_d_100.imagenet.
        target: the file to write, OUT.safetensors or OUT-0000.params.
        symbol: as of `from_mxnet`, and for a conversion from MXNet only.
        input_size, strides: as of `from_mxnet`, and for a conversion to safetensors only.
        force: replace an existing file.

    Returns:
        What was converted.

    Raises:
        InputError: for files that cannot be read or do not fit each other, or a direction that does not exist.
    """
    named = str(source) in weights_names() and not Path(source).exists()
    source, target = Path(source), Path(target)
    check_absent(target, force)
    readable = (
        named or target.suffix == ".params" or source.suffix in (".params", ".zip", ".safetensors", *PICKLES)
    )
    if target.suffix not in (".safetensors", ".params") or not readable:
        raise InputError(
            f"cannot convert {source} to {target}; give X.params, X.pth, X.safetensors of another project or the name "
            "of weights and OUT.safetensors, or weights of igcv and OUT.params"
        )
    foreign = target.suffix == ".safetensors" and not named
    if symbol and source.suffix != ".params":
        raise InputError("--symbol belongs to a conversion from MXNet; leave it out")
    if (input_size or strides) and not foreign:
        raise InputError(
            "--input-size and --strides belong to checkpoints of other frameworks; leave them out"
        )
    if target.suffix == ".params":
        return to_mxnet(source, target)
    if named:
        converted = load(source)
    elif source.suffix == ".params":
        converted = from_mxnet(source, symbol, input_size, strides)
    else:
        converted = from_torch(source, input_size, strides)
    save_weights(target, converted.model.state_dict(), converted.card)
    return converted


def from_torch(
    file: str | Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> Classifier:
    """Convert a checkpoint of pytorchcv (IGCV3), torchvision or timm (MobileNetV2).

    Nothing in the file is executed. A file that has a name here (`igcv models --pretrained`) is known by its checksum,
    and its card has the class names; any other card has the usual preprocessing of the project and no class names.

    Args:
        file: a .pth file with a state_dict, or the .zip archive that holds it, or a .safetensors file of timm.
        input_size, strides: as of `from_mxnet`.

    Raises:
        InputError: if the file cannot be read or is from igcv, its tensors belong to no network in the catalog, or some
            are missing or left over (both are listed).
    """
    network, card = read_torch(Path(file), input_size, strides)
    return Classifier(network.eval(), card)


def from_mxnet(
    params: str | Path,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
) -> Classifier:
    """Convert a checkpoint of MXNet.

    Args:
        params: the `-0000.params` file; float16 and float64 weights become float32.
        symbol: the `-symbol.json` file, to check its layers against the network's (see `check_graph`).
        input_size: side in pixels of the images that the network was trained on; None: 224, for CIFAR networks 32.
        strides: total stride of the stem, then the stride of each stage; None: those of the catalog for
            `input_size`. Weights do not tell their strides, and others' networks for small images may have others.

    Raises:
        InputError: if a file cannot be read, its tensors belong to no network in the catalog, or some are
            missing or left over (both are listed).
    """
    network, card = read_checkpoint(Path(params), symbol, input_size, strides)
    return Classifier(network.eval(), identified(card, Path(params)))


def to_mxnet(weights: str | Path, out: str | Path) -> Classifier:
    """Write weights of igcv as a `.params` file, in the order in which MXNet saves a checkpoint.

    Args:
        weights: a run folder or a .safetensors file written by igcv.
        out: the file to write.

    Returns:
        What was written.

    Raises:
        InputError: if the weights cannot be read, or MXNet has no names for their network (IGCV2).
    """
    trained = load(weights)
    if trained.card.model.startswith("igcv2"):
        raise InputError(
            f"{weights} holds {trained.card.model}; only IGCV1, IGCV3 and MobileNetV2 have names in MXNet"
        )
    write_params(out, checkpoint_arrays(trained.model))
    return trained
