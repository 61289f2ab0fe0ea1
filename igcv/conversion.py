"""Checkpoints of other frameworks as classifiers, and the way back: MXNet's of IGCV1, IGCV3 and MobileNetV2."""

from collections.abc import Sequence
from pathlib import Path

from igcv.classifier import Classifier, load
from igcv.errors import InputError
from igcv.weights.files import save_weights
from igcv.weights.foreign.mxnet import checkpoint_arrays, read_checkpoint
from igcv.weights.foreign.mxnet_files import write_params
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
    """Convert an MXNet checkpoint to safetensors, or weights of igcv to an MXNet checkpoint; `igcv convert`.

    Args:
        source: MXNet's X-0000.params, or a run folder or weights of igcv.
        target: the file to write, OUT.safetensors or OUT-0000.params.
        symbol, input_size, strides: as of `from_mxnet`, and for a conversion from MXNet only.
        force: replace an existing file.

    Returns:
        What was converted.

    Raises:
        InputError: for files that cannot be read or do not fit each other, or a direction that does not exist.
    """
    source, target = Path(source), Path(target)
    check_absent(target, force)
    if source.suffix == ".params" and target.suffix == ".safetensors":
        converted = from_mxnet(source, symbol, input_size, strides)
        save_weights(target, converted.model.state_dict(), converted.card)
        return converted
    if target.suffix != ".params":
        raise InputError(
            f"cannot convert {source} to {target}; give X.params OUT.safetensors, or IN OUT.params"
        )
    if input_size or strides or symbol:
        raise InputError(
            "--input-size, --strides and --symbol belong to a conversion from MXNet; leave them out"
        )
    return to_mxnet(source, target)


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
    return Classifier(network.eval(), card)


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
