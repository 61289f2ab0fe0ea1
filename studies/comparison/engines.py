"""Networks in inference engines: igcv's with its own writers, all others with the usual converters."""

import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import igcv
from igcv.deploy.compare import compare
from igcv.deploy.writers.session import session_of
from igcv.deploy.writers.table import WRITERS
from igcv.engines.litert import LiteRtSession
from igcv.engines.onnxruntime import OnnxSession
from igcv.engines.session import Inference, Session
from igcv.errors import InputError
from igcv.silence import Nowhere, silent
from studies.benchmarks.engines_timing import time_alternately
from studies.comparison.networks import NETWORKS, SIZE, Network

THREADS = 1
CLASSES = 1000  # ImageNet's


class Engine(NamedTuple):
    """Inference engine of the comparison.

    Attributes:
        title: name on the page.
        package: package on PyPI.
        converter: package that converts the networks of other projects.
        convert: function that returns a session of a network of another project for example images.
    """

    title: str
    package: str
    converter: str
    convert: Callable[[nn.Module, Tensor], Session]


def converted_to_onnx(network: nn.Module, images: Tensor) -> Session:
    """Return a session of ONNX Runtime for a network that PyTorch's exporter has converted."""
    with silent(), redirect_stdout(Nowhere()), torch.inference_mode():
        program = torch.onnx.export(network, (images,), dynamo=True, verbose=False)
    assert program is not None
    return OnnxSession(program.model_proto.SerializeToString(), THREADS)


def converted_to_litert(network: nn.Module, images: Tensor) -> Session:
    """Return a session of LiteRT for a network that Google's converter has converted, with channels-last images."""
    import litert_torch

    with tempfile.TemporaryDirectory() as folder, silent(), redirect_stdout(Nowhere()):
        file = Path(folder) / "network.tflite"
        channels_last = litert_torch.to_channel_last_io(network, args=[0])
        litert_torch.convert(channels_last, (images.permute(0, 2, 3, 1),)).export(str(file))
        return LiteRtSession(file, THREADS)


ENGINES = {
    "onnx": Engine("ONNX Runtime", "onnxruntime", "onnxscript", converted_to_onnx),
    "litert": Engine("LiteRT", "ai-edge-litert", "litert-torch", converted_to_litert),
}


def opened(network: Network, engine: str) -> Inference:
    """Return a function that classifies one image in an engine, after a comparison with PyTorch.

    Raises:
        InputError: if the engine computes other logits than PyTorch.
    """
    torch.manual_seed(0)
    model, images = network.build(CLASSES), torch.randn(1, 3, SIZE, SIZE)
    if network.ours:
        folded = igcv.fold(model, WRITERS[engine].form(SIZE), engine=engine, threads=THREADS)
        session = session_of(folded, images, engine, THREADS)
    else:
        session = ENGINES[engine].convert(model, images)
    found = compare(model, session, images.numpy())
    if not found.error < found.limit:
        raise InputError(
            f"{network.title}, {engine}: logits differ by {found.error:.1e} (limit: {found.limit:.1e})"
        )
    return session.bind(np.ascontiguousarray(images.numpy()))


def times_of(engine: str, rounds: int) -> dict[str, list[float]]:
    """Return the CPU times per image of all networks in an engine: milliseconds, one value per round."""
    torch.set_num_threads(THREADS)
    runs = {}
    for network in NETWORKS:
        print(f"{ENGINES[engine].title}: {network.title}", file=sys.stderr, flush=True)
        runs[network.name, ""] = opened(network, engine)
    times = time_alternately(runs, rounds, random.Random(0))
    return {name: found for (name, _), found in times.items()}
