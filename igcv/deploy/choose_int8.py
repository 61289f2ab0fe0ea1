"""The form of an int8 network, by measuring whole files in their engine: the plan behind `igcv export --int8`.

Integer kernels like other forms than floating-point ones: some are slow with groups, all are slow to add. Grouped forms
in turn store no zeros, and a small file is what int8 is mostly for. So the smallest file is taken of those that are
about as fast as the fastest.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from igcv.deploy.choose import remembered, shortest_times
from igcv.deploy.engines import ENGINES, Images
from igcv.deploy.exported import open_session, size_of
from igcv.deploy.fold import Plan, build_network, fixed_plan, foldable_blocks
from igcv.deploy.folded import FoldedNetwork
from igcv.models import Network

INT8_FORMS = ("dense", "group_dense", "group_group")  # the others add up paths, or keep the permutation
AS_FAST = 1.1  # times the time of the fastest


def choose_int8_plan(
    model: Network,
    write: Callable[[FoldedNetwork, Path], None],
    engine: str,
    images: Images,
    threads: int | None = None,
) -> Plan:
    """The plan for an int8 file, measured, or from an earlier measurement of the same network on this machine.

    Args:
        model: the trained network.
        write: quantizes a folded network into a file.
        engine: "onnx" or "openvino".
        images: as the file takes them; as many as it will be given at a time.
        threads: of the engine; default: PyTorch's number.

    Raises:
        InputError: for an engine that is unknown or not installed.
    """
    threads = threads or torch.get_num_threads()
    setting = f"int8 {images.dtype} {images.shape} {threads}"
    return remembered(model, engine, setting, partial(_measure, model, write, engine, images, threads))


def _measure(
    model: Network,
    write: Callable[[FoldedNetwork, Path], None],
    engine: str,
    images: Images,
    threads: int,
) -> Plan:
    blocks = foldable_blocks(model)
    plans: list[Plan] = []
    for form in INT8_FORMS:  # of MobileNetV2 all are the same
        plan = fixed_plan(blocks, form, 1)
        plans += [plan] if plan not in plans else []
    if len(plans) == 1:
        return plans[0]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}{ENGINES[engine].suffix}" for i in range(len(plans))]
        for plan, file in zip(plans, files, strict=True):
            write(build_network(model, blocks, plan), file)
        times = shortest_times([open_session(file, engine, threads).bind(images) for file in files])
        sizes = [size_of(file) for file in files]
    enough = [i for i, taken in enumerate(times) if taken <= AS_FAST * min(times)]
    return plans[min(enough, key=sizes.__getitem__)]
