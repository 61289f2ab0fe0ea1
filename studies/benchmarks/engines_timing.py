"""Time per image of IGCV3 and MobileNetV2 in one inference engine, measured in random order in one process."""

import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

import igcv
from igcv.deploy.compare import compare
from igcv.deploy.folding.forms import LITERAL
from igcv.deploy.writers.session import session_of
from igcv.deploy.writers.table import WRITERS
from igcv.engines.session import Inference
from igcv.engines.table import ENGINES
from igcv.errors import InputError
from igcv.extras import installed
from studies.benchmarks.engines_mnn import mnn_session
from studies.benchmarks.networks import classes


class Measured(NamedTuple):
    """Engine of the comparison: its name on the page, and its package on PyPI."""

    title: str
    package: str


MNN = "mnn"
MEASURED = {
    "litert": Measured("LiteRT", "ai-edge-litert"),
    "ncnn": Measured("ncnn", "ncnn"),
    "executorch": Measured("ExecuTorch", "executorch"),
    MNN: Measured("MNN", "MNN"),
    "onnx": Measured("ONNX Runtime", "onnxruntime"),
}
BASELINE = "mobilenetv2_100"
NETWORKS = ("igcv3_d_100", "igcv3_d_p70", "igcv3_d_half", "igcv3_d_p50")
CANDIDATES = ("group_branches", "sources_group", "partial_sums")
ENTRIES = (
    (BASELINE, "dense"),  # MobileNetV2 has no groups, so "dense" means its own layers
    *((network, form) for network in NETWORKS for form in (LITERAL, *CANDIDATES)),
)
THREADS = 1
ROUND_S = 0.1  # seconds per network and round

Entry = tuple[str, str]  # network, form
Times = dict[Entry, list[float]]  # CPU time per image in milliseconds, one value per round


class Setting(NamedTuple):
    """What one process measures.

    Attributes:
        engine: a name in `MEASURED`.
        size: side of the images, in pixels.
        choice_rounds: rounds of all forms, which choose the best form of each network.
        rounds: rounds of the literal form and the best form of each network, which give the results.
    """

    engine: str
    size: int
    choice_rounds: int
    rounds: int


def obstacle(engine: str) -> str:
    """Return why an engine cannot be measured; empty if it can."""
    if engine == MNN:
        packages = ["MNN"]
    elif engine in WRITERS:
        packages = [ENGINES[engine].package, WRITERS[engine].package]
    else:
        return "igcv has no writer for it"
    absent = [package for package in packages if not installed(package)]
    return f"the package {absent[0]} is not installed" if absent else ""


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Return one row of results per network and form. A form that is not the best has no `cpu_ms`."""
    torch.set_num_threads(THREADS)
    order = random.Random(0)
    runs = {entry: opened(*entry, setting.engine, setting.size) for entry in ENTRIES}
    choice = time_alternately(runs, setting.choice_rounds, order)
    kept = {entry: runs[entry] for entry in chosen(choice)}
    times = time_alternately(kept, setting.rounds, order)
    return [
        {
            "engine": setting.engine,
            "size": setting.size,
            "network": network,
            "form": form,
            "choice_cpu_ms": choice[network, form],
            "cpu_ms": times.get((network, form)),
        }
        for network, form in ENTRIES
    ]


def opened(network: str, form: str, engine: str, size: int) -> Inference:
    """Return a function that runs a network in a form on one image, after a comparison with PyTorch.

    Raises:
        InputError: if the engine computes other logits than PyTorch.
    """
    torch.manual_seed(0)
    model = igcv.create_model(network, classes(size), input_size=size).eval()
    images = torch.randn(1, 3, size, size)
    folded = igcv.fold(model, form)
    if engine == MNN:
        session: Any = mnn_session(folded, images, THREADS)
    else:
        session = session_of(folded, images, engine, THREADS)
    found = compare(model, session, images.numpy())
    if not found.error < found.limit:
        raise InputError(
            f"{network}, form {form}, {engine}: the logits differ from PyTorch by {found.error:.1e} of the largest "
            f"logit (limit: {found.limit:.1e})"
        )
    run: Inference = session.bind(np.ascontiguousarray(images.numpy()))
    return run


def time_alternately(runs: Mapping[Entry, Inference], rounds: int, order: random.Random) -> Times:
    """Return the CPU times of the process per run, with another random order in each round."""
    repeats = {entry: max(1, round(ROUND_S / seconds(run, 2))) for entry, run in runs.items()}
    times: Times = {entry: [] for entry in runs}
    for _ in range(rounds):
        for entry in order.sample([*runs], len(runs)):
            times[entry].append(round(1e3 * seconds(runs[entry], repeats[entry]), 4))
    return times


def seconds(run: Inference, count: int) -> float:
    """Return the CPU time of the process per run, after one run that fills the caches."""
    run()
    start = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - start) / count


def chosen(choice: Times) -> list[Entry]:
    """Return the baseline and, for each network, the literal form and the candidate with the lowest median time."""

    def best(network: str) -> Entry:
        return min(((network, form) for form in CANDIDATES), key=lambda entry: median(choice[entry]))

    return [
        (network, form)
        for network, form in ENTRIES
        if form not in CANDIDATES or (network, form) == best(network)
    ]
