"""Settings of an export, and the card that records them."""

from dataclasses import asdict, dataclass, replace

from igcv.deploy.folding.network import FoldedNetwork
from igcv.weights.card import Card


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        format: a name in `igcv.deploy.writers.table.WRITERS`.
        form: the form of the blocks, as for `igcv.fold`; "auto" measures the forms and takes the fastest.
        with_preprocessing: take uint8 RGB images (N, S, S, 3) and normalize them inside the file; otherwise the file
            takes float32 images (N, 3, S, S).
        dynamic_size: make the height and width of the images dynamic.
        opset: version of the ONNX operators; None: the default, `igcv.deploy.writers.onnx.OPSET`.
        batch_size: images per batch in the measurements of "auto", and in a file with a fixed batch size.
        threads: number of threads in the measurements of "auto"; None: PyTorch's number.
        int8: quantize, in formats that support int8. "auto" then measures int8 files.
        float16: store the weights in 16 bits, in formats that support it.
    """

    format: str
    form: str = "auto"
    with_preprocessing: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    batch_size: int = 1
    threads: int | None = None
    int8: bool = False
    float16: bool = False


def exported_card(card: Card, folded: FoldedNetwork, settings: ExportSettings) -> Card:
    """Return the card of the exported file: the card of the network, with the export settings and forms."""
    made = {**asdict(settings), "forms": folded.forms, "vector_width": folded.vector_width}
    return replace(card, source={**card.source, "export": made})
