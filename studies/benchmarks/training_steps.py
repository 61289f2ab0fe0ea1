"""Alternate timing of training steps in separate processes."""

import multiprocessing
import random
import sys
import tempfile
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

import igcv
from igcv.machine.memory import give_back_freed_memory, keep_freed_memory, peak_mib
from igcv.machine.precision import autocast
from igcv.machine.timing import now
from igcv.models import blocks, gradients
from igcv.training.choose_forms import measure_forms
from studies.benchmarks.networks import COMPARED, NETWORKS, classes
from studies.benchmarks.training_entries import TrainingEntry
from studies.benchmarks.training_profile import profiled

PROFILE = -1  # request for a profile instead of a number of steps


def serve(connection: Connection, c: TrainingEntry, rank: int, threads: int, store: str) -> None:
    """Run one network in this process and answer requests.

    A request for n steps returns their seconds. PROFILE returns the milliseconds by kind of call. 0 returns the peak
    memory in MiB and ends the process.
    """
    if c.before:
        without_remedies()
    torch.set_num_threads(threads)
    if c.keeps_memory and c.device == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    layout = torch.channels_last if c.channels_last else torch.contiguous_format
    network: Any = NETWORKS[c.network](c.size).to(c.device, memory_format=layout).train()
    share = c.batch // c.processes
    images = torch.randn(share, 3, c.size, c.size, device=c.device).to(memory_format=layout)
    labels = torch.randint(classes(c.size), (share,), device=c.device)
    if c.form:
        igcv.set_form(network, measure_forms(network, images, c.precision) if c.form == "measure" else c.form)
    trained, average = network, ModelEmaV3(network, decay=0.999)
    if c.processes > 1:
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=c.processes)
        network = DistributedDataParallel(network, gradient_as_bucket_view=True, static_graph=True)
    if c.compiled:
        network = torch.compile(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with autocast(torch.device(c.device), c.precision):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with record_function("moving average"):
            average.update(trained)

    def steps(count: int) -> float:
        step()  # warm up: caches and memory are cold after the wait
        start = now(torch.device(c.device))
        for _ in range(count):
            step()
        taken = now(torch.device(c.device)) - start
        give_back_freed_memory()  # so that all entries fit into memory together
        return taken

    step()
    give_back_freed_memory()
    connection.send(None)
    while count := connection.recv():
        connection.send(profiled(step) if count == PROFILE else steps(count))
    connection.send(peak_mib(torch.device(c.device)))


def without_remedies() -> None:
    """Disable the fixes in igcv/models/gradients.py in this process."""
    blocks.match_gradient_format = lambda x: x  # type: ignore[attr-defined]
    gradients.FAST_BF16 = False


class Team:
    """Processes of one entry."""

    def __init__(self, c: TrainingEntry, threads: int) -> None:
        self.entry, self.steps = c, 2 if c.device == "cpu" else 10
        context = multiprocessing.get_context("spawn")
        self.store = tempfile.TemporaryDirectory()
        self.connections, self.members = [], []
        for rank in range(c.processes):
            here, there = context.Pipe()
            arguments = there, c, rank, max(1, threads // c.processes), f"{self.store.name}/store"
            self.members.append(context.Process(target=serve, args=arguments, daemon=True))
            self.members[-1].start()
            self.connections.append(here)
        for connection in self.connections:
            connection.recv()

    def rate(self) -> float:
        """Return the images per second over a few steps."""
        return self.entry.batch * self.steps / max(self.ask(self.steps))

    def profile(self) -> dict[str, dict[str, float]]:
        """Return the milliseconds by kind of call, for the compared networks on a CPU only."""
        c = self.entry
        wanted = c.network in COMPARED and c.keeps_memory and c.device == "cpu" and c.processes == 1
        return {"profile": self.ask(PROFILE)[0]} if wanted else {}

    def ask(self, count: int) -> list[Any]:
        """Send `count` to all processes and return their answers."""
        for connection in self.connections:
            connection.send(count)
        return [connection.recv() for connection in self.connections]

    def leave(self) -> int:
        """End the processes and return the sum of their peak memory in MiB."""
        memory = sum(self.ask(0))
        for member in self.members:
            member.join()
        self.store.cleanup()
        return memory


def time_steps(entered: list[TrainingEntry], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Time all entries in random order within each round and return one row of results per entry."""
    teams = []
    for c in entered:
        print(f"  starting {c.label}, {c.size} px, batch {c.batch}", file=sys.stderr)
        teams.append(Team(c, threads))
    rates: list[list[float]] = [[] for _ in teams]
    order = random.Random(0)
    for number in range(rounds):
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
        for team, measured in order.sample([*zip(teams, rates, strict=True)], len(teams)):
            measured.append(team.rate())
    return [
        {
            **asdict(team.entry),
            "label": team.entry.label,
            **team.profile(),
            "rates": [round(rate, 2) for rate in measured],
            "memory_mib": team.leave(),
        }
        for team, measured in zip(teams, rates, strict=True)
    ]
