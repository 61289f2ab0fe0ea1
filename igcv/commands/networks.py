"""The commands `igcv models`, `igcv summary` and `igcv convert`."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igcv.commands.printing.lines import print_line
from igcv.commands.printing.networks import print_catalog, print_stages, print_unmet
from igcv.commands.printing.weights import print_weights
from igcv.errors import InputError, unknown
from igcv.extras import required

if TYPE_CHECKING:
    from igcv.analysis import BlockPattern, StageRow


def models(
    pattern: Annotated[str, typer.Argument(help="shell pattern of names, e.g. 'igcv3*'")] = "*",
    num_classes: Annotated[int, typer.Option(help="outputs of the classifier", min=0)] = 1000,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: each network's own")
    ] = None,
    pretrained: Annotated[
        bool,
        typer.Option("--pretrained", help="list trained weights instead, with accuracy and license"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per row")] = False,
) -> None:
    """List networks with parameters and multiply-adds or, with --pretrained, trained weights.

    Give a network name to --model, igcv summary and igcv bench latency.
    Give a weights name as RUN|WEIGHTS or to --init-from. igcv downloads weights of other projects once.

    Example: igcv models 'igcv3*' --pretrained
    """
    if pretrained:
        list_pretrained(pattern, as_json)
        return
    from igcv.analysis import model_cost
    from igcv.models import default_input_size, list_models

    names = list_models(pattern)
    if not names:
        raise unknown("model pattern", pattern, list_models(), "igcv models lists them all")
    sizes = {name: input_size or default_input_size(name) for name in names}
    costs = {name: model_cost(name, num_classes, size) for name, size in sizes.items()}
    if not as_json:
        print_catalog(sizes, costs)
        return
    for name, cost in costs.items():
        print(json.dumps({"name": name, "input_size": sizes[name], **cost._asdict()}))


def list_pretrained(pattern: str, as_json: bool) -> None:
    """Print the weights whose own name or network name matches a shell pattern."""
    from igcv.weights import list_weights

    known = list_weights()
    rows = [
        row for row in known if fnmatch(row.name, pattern) or fnmatch(row.name.partition(".")[0], pattern)
    ]
    if not rows:
        names = [row.name for row in known]
        raise unknown("weights pattern", pattern, names, "igcv models --pretrained lists them all")
    if as_json:
        for row in rows:
            print(json.dumps(row._asdict()))
    else:
        print_weights(rows)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="X-0000.params of MXNet, X.pth of pytorchcv, torchvision or timm, a run folder or weights of igcv, or "
            "a weights name such as igcv3_d_100.imagenet",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="OUT", help="OUT.safetensors, OUT-0000.params, or a folder for timm, OUT/"),
    ],
    symbol: Annotated[Path | None, typer.Option(help="MXNet graph to check against: X-symbol.json")] = None,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    strides: Annotated[
        str | None,
        typer.Option(help="strides of the stem and the stages; default: the network's for --input-size"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing OUT")] = False,
) -> None:
    """Convert a checkpoint of another project to safetensors, weights of igcv to MXNet, or either to a folder for timm.

    A folder for timm has weights, config.json and a model card, as the Hugging Face Hub expects. After import igcv,
    timm.create_model("local-dir:OUT", pretrained=True) opens the folder.

    A checkpoint does not record strides. For a network trained on small images with other strides than igcv's, give
    --input-size and --strides, e.g. --input-size 32 --strides 1,1,1,2,2,1,2,1.

    Example: igcv convert igcv3-0000.params igcv3.safetensors --symbol igcv3-symbol.json
    """
    import igcv
    from igcv.models import strides_text

    listed = None if strides is None else stride_list(strides)
    converted = igcv.convert(
        source, target, symbol=symbol, input_size=input_size, strides=listed, force=force
    )
    card = converted.card
    parameters = sum(p.numel() for p in converted.model.parameters())
    found = "MXNet checkpoint"
    if not target.endswith(".params"):
        found = (
            f"{card.model}, {card.num_classes} classes, {parameters:,} parameters, {card.input_size} x "
            f"{card.input_size} pixels, strides {strides_text(card.strides)}"
        )
        found += "" if card.class_names else "; no class names: predictions show class numbers"
    print_line(f"{target}: {found}")


def stride_list(text: str) -> list[int]:
    """Parse strides such as "1,1,1,2,2,1,1,1"."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise InputError(
            f"--strides: got '{text}', expected integers separated by commas, e.g. 1,1,1,2,2,1,1,1"
        )
    return [int(part) for part in parts]


def summary(
    name: Annotated[str, typer.Argument(help="network, e.g. igcv3_d_100 (igcv models lists all)")],
    num_classes: Annotated[int, typer.Option(help="outputs of the classifier", min=0)] = 1000,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="output file for a drawing of a block (.svg, .png, .pdf)")
    ] = None,
    block: Annotated[
        str | None, typer.Option(help="block to draw, e.g. stages.2.1; default: the middle block")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per stage")] = False,
) -> None:
    """Print the costs of a network by stage, and check the papers' connectivity condition of each block.

    Example: igcv summary igcv3_d_100 --plot block.svg --block stages.2.1
    """
    import torch

    from igcv.analysis import blocks, connectivity, summarize
    from igcv.models import build_model, default_input_size, strides_text

    if block is not None and plot is None:
        raise InputError("--block needs --plot, the file to draw to. Add --plot FILE.svg")
    size = input_size or default_input_size(name)
    with torch.device("meta"):
        network = build_model(name, num_classes, input_size=input_size)
    rows, described = summarize(network, size), blocks(network)
    if plot is not None:
        draw_one(name, described, block or described[len(described) // 2].name, plot)
    if as_json:
        for row in rows:
            print(json.dumps(plain(row)))
        return
    print_stages(f"{name}, {size} px, strides {strides_text(network.strides)}", rows)
    for found, paths in ((b, connectivity(b)) for b in described):
        if not paths.holds:
            print_unmet(found.name, found.condition, paths)


def plain(row: "StageRow") -> dict[str, Any]:
    """Return a row as a dictionary for JSON."""
    parts = {key: getattr(row, key) for key in ("connectivity", "balance")}
    return row._asdict() | {key: part and part._asdict() for key, part in parts.items()}


def draw_one(name: str, described: "list[BlockPattern]", wanted: str, path: Path) -> None:
    """Draw the block named `wanted`; of a block with two drawable convolutions, draw the first."""
    required("matplotlib", "--plot", "report")
    from igcv.report.drawing import draw_block

    found = next((b for b in described if f"{b.name}.".startswith(f"{wanted}.")), None)
    if found is None:
        raise unknown("block", wanted, [b.name for b in described], "stages.STAGE.BLOCK, both counted from 0")
    draw_block(found.rows(), path, f"{name}, {found.name}")
