"""How an exported file is to be, and the card that says so."""

from dataclasses import asdict, dataclass, replace

from igcv.deploy.folding.network import FoldedNetwork
from igcv.weights.card import Card


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How a file is to be.

    Attributes:
        format: a name in `igcv.deploy.writers.table.WRITERS`.
        form: how blocks are computed, as for `igcv.fold`; "auto" measures.
        with_preprocessing: take uint8 RGB images (N, S, S, 3) and normalize them inside; else float32 (N, 3, S, S).
        dynamic_size: leave height and width of the images open; the batch always is.
        opset: of ONNX operators; None: a current one.
        batch_size, threads: what "auto" measures with.
        int8: quantize, where the format can; "auto" measures int8 files then.
    """

    format: str
    form: str = "auto"
    with_preprocessing: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    batch_size: int = 1
    threads: int | None = None
    int8: bool = False


def exported_card(card: Card, folded: FoldedNetwork, settings: ExportSettings) -> Card:
    """The card that travels with the file: it says as well how the file was made."""
    made = {**asdict(settings), "forms": folded.forms, "vector_width": folded.vector_width}
    return replace(card, source={**card.source, "export": made})
