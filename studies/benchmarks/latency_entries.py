"""Entries of the latency benchmark: igcv's networks in each engine, and other implementations."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

import igcv
from igcv.analysis import model_cost
from igcv.data.preprocessing import IMAGENET
from igcv.deploy.latency import LatencyEntry
from igcv.deploy.write import folded_for, write_network
from igcv.deploy.writers.onnx import onnx_graph
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import open_session
from igcv.engines.session import Session
from igcv.engines.table import ENGINES
from igcv.weights.card import Card
from studies.benchmarks.networks import NETWORKS

ENGINES_MEASURED = ("torch", "onnx", "openvino")  # the last two read ONNX files
OURS, BASELINE = "igcv3_d_100 folded", "mobilenetv2_100 folded"
LITERAL, INT8, KEPT = "igcv3_d_100 literal", "igcv3_d_100 int8", ", malloc keeps freed memory"
OTHERS = ("torchvision mobilenet_v2", "timm mobilenetv2_100", "pytorchcv igcv3_w1")


def folded(name: str, form: str, engine: str, size: int, batch: int, threads: int) -> nn.Module:
    """Return a folded network of the catalog, with random weights."""
    torch.manual_seed(0)
    model = igcv.create_model(name, input_size=size).eval()
    return igcv.fold(model, form, engine=engine, input_size=size, batch_size=batch, threads=threads)


def torch_session(build: Callable[[], nn.Module], threads: int) -> Session:
    """Open a network in PyTorch."""
    return ENGINES["torch"](build().eval(), threads)


@cache
def foreign_file(name: str, size: int, folder: Path) -> Path:
    """Export another implementation with torch.onnx.export and return the file."""
    file = folder / f"{name.replace(' ', '_')}_{size}.onnx"
    images = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(NETWORKS[name](size).eval(), (images,), file, dynamic_shapes=shapes, verbose=False)
    return file


def entries(engine: str, size: int, batch: int, threads: int, folder: Path) -> list[LatencyEntry]:
    """Return all entries of an engine."""
    found = []
    forms = (
        (LITERAL, "igcv3_d_100", "literal"),
        (OURS, "igcv3_d_100", "auto"),
        (BASELINE, "mobilenetv2_100", "auto"),
    )
    shape = (3, size, size)
    for label, name, form in forms:
        cost = model_cost(name, input_size=size).multiply_adds
        build = partial(folded, name, form, engine, size, batch, threads)
        network = build()  # measure the forms now, so that the processes find the cached choice
        if engine == "torch":
            opener: Callable[[], Session] = partial(torch_session, build, threads)
            kept = LatencyEntry(label + KEPT, opener, shape, multiply_adds=cost, keeps_memory=True)
            found += [kept] if form == "auto" else []
        else:
            file = folder / f"{label.replace(' ', '_')}_{engine}_{size}_{batch}_{threads}.onnx"
            file.write_bytes(onnx_graph(network, torch.zeros(1, *shape)).SerializeToString())
            opener = partial(open_session, file, engine, threads)
        found.append(LatencyEntry(label, opener, shape, multiply_adds=cost))
    if engine != "torch":
        file = int8_file(engine, size, batch, threads, folder)
        found.append(LatencyEntry(INT8, partial(open_session, file, engine, threads), shape))
    for name in OTHERS:
        if name.startswith("pytorchcv") and (size != 224 or not find_spec("pytorchcv")):
            continue
        if engine == "torch":
            opener = partial(torch_session, partial(NETWORKS[name], size), threads)
        else:
            opener = partial(open_session, foreign_file(name, size, folder), engine, threads)
        found.append(LatencyEntry(name, opener, shape))
    return found


@cache
def int8_file(engine: str, size: int, batch: int, threads: int, folder: Path) -> Path:
    """Write igcv3_d_100 in int8 like `igcv export --int8`, in the form measured for this setting."""
    torch.manual_seed(0)
    model = igcv.create_model("igcv3_d_100", input_size=size).eval()
    pre = replace(IMAGENET, input_size=size)
    card = Card(
        model="igcv3_d_100",
        num_classes=1000,
        input_size=size,
        strides=model.strides,
        preprocessing=pre.to_dict(),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    settings = ExportSettings(format=engine, int8=True, batch_size=batch, threads=threads)
    network = folded_for(igcv.Classifier(model, card), settings, pixels)
    file = folder / f"int8_{engine}_{size}_{batch}_{threads}{ENGINES[engine].suffix}"
    write_network(network, file, settings, pre, pixels)
    return file
