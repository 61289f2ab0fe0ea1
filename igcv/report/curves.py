"""The curves of a run as a picture."""

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PANELS = (  # title, unit of the y axis, (column of the metrics log, label)
    ("Loss", "cross-entropy (nats)", (("train_loss", "training"), ("val_loss", "validation"))),
    ("Accuracy", "top-1 (%)", (("val_top1", "validation"),)),
    ("Learning rate", "at the start of the epoch", (("lr", "learning rate"),)),
    ("Speed", "training images per second", (("images_per_s", "images/s"),)),
)
LONGEST_TITLE = 80  # characters that fit above the picture; of a longer one, the end
COLOURS = ("#3465a4", "#cc6600")


def draw_curves(history: list[dict[str, Any]], title: str) -> bytes:
    """Draw the rows of a metrics log; returns a PNG file.

    Args:
        history: one dict per epoch, as in metrics.jsonl.
        title: drawn above.
    """
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    shown = title if len(title) <= LONGEST_TITLE else "..." + title[-LONGEST_TITLE:]
    figure.suptitle(shown.replace("$", r"\$"), fontsize=13)
    for axes, (name, unit, columns) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for (column, label), colour in zip(columns, COLOURS, strict=False):
            points = [(row["epoch"], row[column]) for row in history if column in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True), ".-" if len(points) < 40 else "-", label=label, color=colour
                )
        axes.set(title=name, xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if len(columns) > 1:
            axes.legend(frameon=False)
        if name == "Accuracy" and any("val_top1" in row for row in history):
            best = max(row.get("val_top1", 0.0) for row in history)
            axes.axhline(best, color="0.6", linewidth=0.8, linestyle="--")
            axes.set_title(f"Accuracy (best {best:.2f} %)")
    picture = BytesIO()
    figure.savefig(picture, dpi=110)
    return picture.getvalue()
