"""The commands that ship a network and measure it: `igcv export` and `igcv bench latency`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from igcv.commands.options import BatchOption, Engine, Force, Form, Match, Threads
from igcv.commands.printing.deploy import print_export, print_latency
from igcv.commands.printing.lines import print_error, print_line, working


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
    match: Match = "name",
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="take uint8 RGB images (N, S, S, 3) and normalize inside"),
    ] = False,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="leave height and width open, as the batch always is")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="version of the ONNX operators; default: 21")] = None,
    batch: BatchOption = 1,
    threads: Threads = 1,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write a trained network as a file for an inference engine, and compare it with the network there.

    Batch norms and permutations are gone from the file. The form is chosen for the given --batch and --threads.

    Example: igcv export runs/digits --out digits.onnx --with-preprocessing
    """
    with working("exporting"):
        import igcv

        written = igcv.export(
            weights,
            out,
            format=format,
            form=form,
            int8=int8,
            calibrate=calibrate,
            data=data,
            match=match,
            with_preprocessing=with_preprocessing,
            dynamic_size=dynamic_size,
            opset=opset,
            batch_size=batch,
            threads=threads,
            force=force,
            say=print_error if as_json else print_line,
        )
    if as_json:
        print(json.dumps(written.as_dict()))
    else:
        print_export(written.as_dict())


def bench_latency(
    networks: Annotated[
        list[str],
        typer.Argument(metavar="NAME|RUN|FILE...", help="networks by name, runs, weights, exported files"),
    ],
    engine: Engine = None,
    form: Form = "auto",
    threads: Threads = 1,
    batch: BatchOption = 1,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    rounds: Annotated[int, typer.Option(help="times that each network takes its turn", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per network")] = False,
) -> None:
    """Measure how long networks take to classify, in turns, and how much memory they need.

    Example: igcv bench latency igcv3_d_100 mobilenetv2_100 --engine onnx --threads 1 --batch 1
    """
    from igcv.deploy.latency import latency_entry, ratios, time_networks

    entered = [latency_entry(what, engine, threads, batch, form, input_size) for what in networks]
    results = time_networks(entered, batch, threads, rounds)
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
