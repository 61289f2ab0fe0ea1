"""From a trained network to one for inference that computes the same function: `igcv.fold`."""

from collections.abc import Mapping

from igcv.deploy.folding.network import FoldedNetwork
from igcv.deploy.folding.plan import AUTO, fixed_plan, foldable_blocks, folded_network
from igcv.models import Network


def fold(
    model: Network,
    form: str | Mapping[str, str] = AUTO,
    *,
    engine: str = "torch",
    input_size: int | None = None,
    batch_size: int = 1,
    threads: int | None = None,
    vector_width: int = 1,
) -> FoldedNetwork:
    """A network for inference that computes what `model` computes; `model` stays as it is.

    Batch norms are folded into the convolutions before them, permutations into the order of channels; what is left are
    convolutions with biases, activations and sums.

    Args:
        model: a network of the catalog.
        form: "auto" measures the forms of each distinct block on this machine, some seconds, and takes the fastest;
            "literal" keeps the layers and permutations of the papers; a name in `igcv.deploy.FORMS`, for every block
            that has it; or a form for each block by its name, "dense" for those left out.
        engine: what "auto" measures with: "torch", "onnx" or "openvino".
        input_size: side in pixels of the images that "auto" measures with; default: the network's own.
        batch_size: images at a time, likewise.
        threads: threads, likewise; default: PyTorch's number.
        vector_width: see `Plan`; "auto" chooses it as well.

    Raises:
        InputError: for a network that is folded already or is none of the catalog's, or an unknown form.

    >>> import igcv
    >>> folded = fold(igcv.create_model("igcv3_d_025", 10, input_size=32), "branches")
    >>> any("Norm" in type(layer).__name__ for layer in folded.modules())
    False
    """
    blocks = foldable_blocks(model)
    if form == AUTO:
        from igcv.deploy.choose import choose_plan  # measures with engines, which need not be installed

        plan = choose_plan(model, engine, input_size or model.input_size, batch_size, threads)
    else:
        plan = fixed_plan(blocks, form, vector_width)
    return folded_network(model, blocks, plan)
