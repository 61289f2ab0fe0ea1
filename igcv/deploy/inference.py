"""The function `igcv.fold`, which returns an equivalent network for inference."""

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
    """Return an equivalent network for inference. `model` is not changed.

    Folding merges batch norms into the convolutions before them, and permutations into the order of the channels. The
    folded network consists of convolutions with biases, activations, sums and concatenations. The form "literal" also
    keeps the permutations.

    Args:
        model: a network of the catalog.
        form: form of the blocks. "auto" measures the forms of each distinct block on this machine and takes the
            fastest. The measurement takes seconds to minutes, and its result is cached (see `igcv.cache`). "literal"
            keeps the layers and permutations of the papers. A name in `igcv.deploy.FORMS` applies to every block that
            has this form. A dictionary gives a form per block name; its other blocks are "dense".
        engine: engine for the measurements of "auto": "torch", "onnx" or "openvino".
        input_size: side of the images for the measurements, in pixels; None: the input size of the network.
        batch_size: images per batch in the measurements.
        threads: number of threads in the measurements; None: PyTorch's number.
        vector_width: see `igcv.deploy.Plan`. "auto" chooses the vector width itself.

    Raises:
        InputError: if `model` is already folded, not a network of the catalog or built with `output_stride`, or the
            form is unknown.

    >>> import igcv
    >>> folded = fold(igcv.create_model("igcv3_d_025", 10, input_size=32), "branches")
    >>> any("Norm" in type(layer).__name__ for layer in folded.modules())
    False
    """
    blocks = foldable_blocks(model)
    if form == AUTO:
        from igcv.deploy.choose import choose_plan  # the engines are optional packages

        plan = choose_plan(model, engine, input_size or model.input_size, batch_size, threads)
    else:
        plan = fixed_plan(blocks, form, vector_width)
    return folded_network(model, blocks, plan)
