"""Measured plans, kept in the cache folder of this machine."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from igcv.cache import cache_folder
from igcv.deploy.folding.forms import FORMS
from igcv.deploy.folding.plan import Plan
from igcv.engines.table import engine as find_engine
from igcv.engines.table import version_of
from igcv.errors import InputError
from igcv.machine.host import processor
from igcv.models import Network
from igcv.version import __version__
from igcv.writing import write_file


def remembered(model: Network, engine: str, setting: str, measure: Callable[[], Plan]) -> Plan:
    """Return the cached plan of this network, setting and machine, or measure and cache the plan.

    Args:
        model: the trained network.
        engine: name of the engine.
        setting: text that identifies the setting of the measurement.
        measure: function that measures the plan.
    """
    find_engine(engine)
    code = f"igcv {__version__} {sorted(FORMS)}"  # other versions of igcv may have other or faster forms
    machine = f"{version_of(engine)}, {torch.backends.cpu.get_cpu_capability()}, {processor()}"
    key = f"{engine} {setting} {model} {model.state_dict().keys()} {code} {machine}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = read_plans()
    if digest in kept:
        return Plan(kept[digest]["forms"], kept[digest]["vector_width"])
    plan = measure()
    write_plans({**read_plans(), digest: {"engine": engine, **plan._asdict()}})
    return plan


def plans_file() -> Path:
    """Return the path of the file of measured plans."""
    return cache_folder() / "plans.json"


def read_plans() -> dict[str, Any]:
    """Return the cached plans by key; empty if the file is missing or damaged."""
    try:
        kept = json.loads(plans_file().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def write_plans(plans: Mapping[str, Any]) -> None:
    """Cache plans, unless the cache folder is not writable."""
    try:
        plans_file().parent.mkdir(parents=True, exist_ok=True)
        write_file(plans_file(), json.dumps(plans, indent=1).encode())
    except (OSError, InputError):
        return
