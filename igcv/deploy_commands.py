"""The commands that ship a network and measure it: `igcv export` and `igcv bench latency`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from igcv.errors import InputError
from igcv.terminal import print_export, print_int8, print_latency, print_line

COMPARED, CALIBRATED = 16, 256  # images to compare on, and to quantize with

Engine = Annotated[
    str | None, typer.Option(help="torch, onnx or openvino; default: torch, and of a file its own")
]
Form = Annotated[
    str,
    typer.Option(
        help="how blocks are computed: auto measures on this machine, literal keeps the papers' layers, "
        "or a form such as dense, group_branches, partial_sums"
    ),
]
Threads = Annotated[int, typer.Option(help="threads of the engine", min=1)]
Batch = Annotated[int, typer.Option(help="images at a time", min=1)]


def export(
    weights: Annotated[str, typer.Argument(metavar="RUN|WEIGHTS", help="run folder or .safetensors file")],
    out: Annotated[Path, typer.Option(help="file to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export)")],
    format: Annotated[
        str | None, typer.Option(help="onnx, openvino or torch; default: by the end of --out")
    ] = None,
    form: Form = "auto",
    int8: Annotated[bool, typer.Option("--int8", help="quantize to 8 bits, for onnx and openvino")] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(help="with --int8: images to quantize with; default: the data of the training run"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="images to compare on; default: those of the training run, if they are there"),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="take uint8 RGB images (N, S, S, 3) and normalize inside"),
    ] = False,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="leave height and width open, as the batch always is")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="version of the ONNX operators; default: 21")] = None,
    batch: Batch = 1,
    threads: Threads = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write a trained network as a file for an inference engine, and compare it with the network there.

    Batch norms and permutations are gone from the file. The form is chosen for the given --batch and --threads.

    Example: igcv export runs/digits --out digits.onnx --with-preprocessing
    """
    from igcv.classifier import load
    from igcv.deploy.compare import sample_pixels
    from igcv.deploy.engines import ENGINES
    from igcv.deploy.export import Settings
    from igcv.deploy.export import export as write
    from igcv.deploy.exported import is_exported, size_of
    from igcv.deploy.int8 import int8_report, matching_source

    if is_exported(weights):
        raise InputError(f"{weights} is exported already; give the run folder or weights that it came from")
    if calibrate is not None and not int8:
        raise InputError("--calibrate names images to quantize with; add --int8")
    chosen = format or next((n for n, e in ENGINES.items() if e.suffix == out.suffix), None)
    if chosen is None:
        raise InputError(f"{out} does not tell the format; end it in .onnx, .xml or .pt2, or add --format")
    settings = Settings(
        format=chosen,
        form=form,
        with_preprocessing=with_preprocessing,
        dynamic_size=dynamic_size,
        opset=opset,
        batch_size=batch,
        threads=threads,
        int8=int8,
    )
    classifier = load(weights)
    pre = classifier.preprocessing
    validation = matching_source(classifier, data, required=data is not None)
    calibration = None
    if int8:
        source = matching_source(classifier, calibrate, required=True)
        calibration = sample_pixels(source, pre, CALIBRATED, train=True)
    pixels = sample_pixels(validation, pre, COMPARED)
    quiet: dict[str, Any] = {} if as_json else {"say": print_line}
    folded, comparison = write(classifier, out, settings, pixels, calibration, **quiet)
    figures: dict[str, Any] = {
        "file": str(out),
        "bytes": size_of(out),
        "images": comparison.images,
        "on": validation.spec if validation else "two photographs",
        "error": comparison.error,
        "agreement": comparison.agreement,
        "forms": folded.forms,
        "vector_width": folded.vector_width,
    }
    if int8:
        figures["int8"] = int8_report(classifier, out, settings, validation)
    if as_json:
        print(json.dumps(figures))
        return
    print_export(figures)
    if int8:
        print_int8(figures["int8"])


def bench_latency(
    networks: Annotated[
        list[str],
        typer.Argument(metavar="NAME|RUN|FILE...", help="networks by name, runs, weights, exported files"),
    ],
    engine: Engine = None,
    form: Form = "auto",
    threads: Threads = 1,
    batch: Batch = 1,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    rounds: Annotated[int, typer.Option(help="times that each network takes its turn", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per network")] = False,
) -> None:
    """Measure how long networks take to classify, in turns, and how much memory they need.

    Example: igcv bench latency igcv3_d_100 mobilenetv2_100 --engine onnx --threads 1 --batch 1
    """
    from igcv.deploy.latency import contestant, measure, ratios

    entered = [contestant(what, engine, threads, batch, form, input_size) for what in networks]
    results = measure(entered, batch, threads, rounds)
    if not as_json:
        print_latency(results, [ratios(result, results[0])[0] for result in results], batch, threads)
        return
    for result in results:
        times = {
            "median_ms": result.median_ms,
            "low_ms": min(result.times_ms),
            "high_ms": max(result.times_ms),
        }
        rest = {"images_per_s": result.images_per_s, "memory_mib": result.memory_mib, "share": result.share}
        print(json.dumps({"network": result.label, "batch": batch, "threads": threads, **times, **rest}))
