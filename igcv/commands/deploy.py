"""The commands `igcv export` and `igcv bench latency`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from igcv.commands.options import FORM_HELP, BatchOption, Engine, Force, Form, Match, Threads
from igcv.commands.printing.deploy import print_export, print_latency
from igcv.commands.printing.lines import print_error, print_line, working


def export(
    weights: Annotated[
        str, typer.Argument(metavar="RUN|WEIGHTS", help="run folder, .safetensors file or weights name")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="output file: .onnx, .xml (OpenVINO), .pt2 (torch.export), .tflite (LiteRT), .param (ncnn), "
            ".pte (ExecuTorch) or .mlpackage (Core ML, a folder)"
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="onnx, openvino, torch, litert, ncnn, executorch or coreml; default: by the suffix of --out"
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help=f"{FORM_HELP}; default: auto for onnx, openvino, torch; fixed for others"),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="quantize to int8, for onnx and openvino")] = False,
    float16: Annotated[
        bool, typer.Option("--float16", help="weights in 16 bits, for litert, ncnn and coreml")
    ] = False,
    calibrate: Annotated[
        str | None, typer.Option(help="calibration images for --int8; default: the data of the training run")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="images for the comparison; default: the data of the training run, if any"),
    ] = None,
    match: Match = "name",
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="uint8 RGB input (N, S, S, 3), normalized inside the file; always for coreml",
        ),
    ] = False,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="dynamic height and width, for onnx, openvino and torch")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset version; default: 21")] = None,
    batch: BatchOption = 1,
    threads: Threads = 1,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Export a trained network for an inference engine, and compare its outputs with those of the trained network.

    Export folds batch norms into the convolutions and, except with --form literal, permutations too.
    --form auto measures with --batch and --threads, which takes seconds to minutes.
    LiteRT and ExecuTorch files take exactly --batch images, ncnn and Core ML files one image, other files any number.

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
            float16=float16,
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
        typer.Argument(
            metavar="NAME|RUN|FILE...", help="network names, run folders, weights or exported files"
        ),
    ],
    engine: Engine = None,
    form: Form = "auto",
    threads: Threads = 1,
    batch: BatchOption = 1,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    rounds: Annotated[int, typer.Option(help="measurement rounds", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per network")] = False,
) -> None:
    """Measure the latency and memory of networks in interleaved rounds: each round measures every network.

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
