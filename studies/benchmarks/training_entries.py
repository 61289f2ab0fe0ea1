"""Entries of the training benchmark: networks in all forms, and series that measure scaling."""

from dataclasses import dataclass, replace
from importlib.util import find_spec

from studies.benchmarks.networks import COMPARED

BATCH = {
    ("cpu", "float32"): {32: 64, 224: 16},
    ("cpu", "bf16"): {32: 128, 224: 32},
    ("cuda", "bf16"): {32: 1024, 224: 256},
    ("cuda", "float32"): {32: 512, 224: 128},
}


@dataclass(frozen=True)
class TrainingEntry:
    """A network and the settings of its training steps."""

    network: str  # a key of NETWORKS
    size: int = 32  # pixels
    batch: int = 64  # images, over all processes
    form: str = ""  # form of igcv's blocks; "" if the network has no forms
    channels_last: bool = True
    keeps_memory: bool = True  # glibc malloc keeps freed memory, as in igcv train
    compiled: bool = False
    processes: int = 1
    device: str = "cpu"
    precision: str = "float32"
    before: bool = False  # without the fixes in igcv/models/gradients.py

    @property
    def label(self) -> str:
        """Label of the entry in tables."""
        parts = [self.network, self.form, "" if self.channels_last else "channels first"]
        parts += ["compiled" if self.compiled else "", "" if self.keeps_memory else "default malloc"]
        parts += ["before" if self.before else ""]
        return ", ".join(part for part in parts if part)


def entries(size: int, device: str, precision: str, short: bool = False) -> list[TrainingEntry]:
    """Return the entries at an image size; with `short`, only the compared networks before and after the fixes."""
    base = TrainingEntry(
        "igcv3_d_100", size, BATCH[device, precision][size], device=device, precision=precision
    )
    pairs = [
        replace(base, network=name, form="auto" if name.startswith("igcv3") else "", before=before)
        for name in COMPARED
        for before in ((True, False) if device == "cpu" else (False,))
    ]
    if short:
        return pairs
    others = ["timm mobilenetv2_100", "torchvision mobilenet_v2"]
    if size == 224 and find_spec("pytorchcv"):
        others.append("pytorchcv igcv3_w1")
    forms = ("literal", "dense", "branches", "sources", "partial_sums", "measure")
    found = pairs + [replace(base, form=form) for form in forms]
    found += [replace(base, network=name) for name in others]
    if device == "cuda":
        return found + [replace(c, compiled=True) for c in found if c.form != "measure"]
    for c in [c for c in found if not c.before]:
        if c.network in ("igcv3_d_p50", "igcv3_d_half"):
            continue
        if c.form in ("literal", "auto") or c.network in ("mobilenetv2_100", "pytorchcv igcv3_w1"):
            found.append(replace(c, keeps_memory=False))
    if "pytorchcv igcv3_w1" in others:
        first = replace(base, network="pytorchcv igcv3_w1", channels_last=False)
        found.append(replace(first, keeps_memory=False))
    return found


def families(device: str, precision: str) -> dict[str, list[TrainingEntry]]:
    """Return the entries that measure scaling with batch size, resolution, depth and processes."""
    base = TrainingEntry("igcv3_d_100", form="auto", device=device, precision=precision)
    batches = (8, 16, 32, 64, 128) if device == "cpu" else (128, 256, 512, 1024, 2048, 4096)
    sizes = (32, 48, 64, 96) if device == "cpu" else (32, 64, 128, 224)
    depths = ("igcv3_d_half", "igcv3_d_100", "igcv3_d_100 of double depth")
    found = {
        "batch": [replace(base, batch=batch) for batch in batches],
        "size": [replace(base, size=size, batch=16 if device == "cpu" else 256) for size in sizes],
        "network": [replace(base, network=name, batch=32) for name in depths],
    }
    if device == "cpu":
        found["processes"] = [replace(base, processes=n) for n in (1, 2)]
    return found
