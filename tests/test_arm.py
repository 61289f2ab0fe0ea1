"""Tests of the ARM study: files of the plan, comparison under emulation, and page.

The emulator test needs the folder of studies/arm/root.sh: set IGCV_ARM_ROOT.
"""

import os
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch

import igcv
from igcv import InputError
from igcv.data import DataSource
from igcv.data.sources.open import open_source
from igcv.deploy.compare import compare
from igcv.deploy.samples import normalized, sample_pixels
from igcv.deploy.write import write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.session import Inference
from igcv.engines.table import ENGINES
from igcv.models import build_model
from studies.arm.__main__ import check_root
from studies.arm.emulation import EmulatedSession
from studies.arm.page import page
from studies.arm.plan import RELEASED, SUBJECTS, Subject, cases, forms_of, precisions
from studies.arm.subjects import Prepared, prepared

ROOT = Path(os.environ.get("IGCV_ARM_ROOT", "/opt/igcv-arm"))
emulated = pytest.mark.skipif(
    which("qemu-aarch64") is None or not (ROOT / "python").is_file(),
    reason="needs an ARM root: run studies/arm/root.sh DIR, and set IGCV_ARM_ROOT=DIR",
)
SMALL = "igcv3_w_025.digits"  # released


@pytest.fixture(scope="module")
def digits() -> DataSource:
    return open_source("digits")


def exported(file: Path, source: DataSource, engine: str, precision: str) -> tuple[Any, np.ndarray]:
    """Export the small released network; return the network and its input images."""
    pytest.importorskip(ENGINES[engine].package, reason=f"needs igcv[{ENGINES[engine].extra}]")
    classifier = igcv.load(SMALL)
    pixels = sample_pixels(source, classifier.preprocessing, 8)
    settings = ExportSettings(
        format=engine,
        form="group_branches",
        threads=1,
        float16=precision == "float16",
        int8=precision == "int8",
    )
    write_compared(classifier, file, settings, pixels, pixels if settings.int8 else None)
    return classifier.model, normalized(pixels, classifier.preprocessing)


@emulated
@pytest.mark.parametrize(
    ("engine", "precision", "limit"),
    [
        ("litert", "float32", 1e-4),
        ("litert", "float16", 2e-3),
        ("ncnn", "float32", 1e-4),
        ("ncnn", "float16", 5e-3),
        ("onnx", "float32", 1e-4),
        ("onnx", "int8", 0.05),
    ],
)
def test_files_give_the_same_on_arm(
    tmp_path: Path, digits: DataSource, engine: str, precision: str, limit: float
) -> None:
    file = tmp_path / f"network{ENGINES[engine].suffix}"
    model, inputs = exported(file, digits, engine, precision)
    session = EmulatedSession(file, ROOT, precision == "float16")
    found = compare(model, session, inputs)
    assert found.error < limit and found.agreement == 1
    assert session.about["processor"] == "aarch64"
    assert len(session.instructions) == 8 and min(session.instructions) > 1e5


@emulated
def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"'network\.onnx' failed in the emulator \(status 1\)"):
        EmulatedSession(file, ROOT).bind(np.zeros((1, 3, 8, 8), np.float32))()


def test_the_short_set_and_the_full_set() -> None:
    model = build_model("igcv3_d_025", 10, input_size=32)
    some, every = (list(cases(Subject("igcv3_d_025", 32, 2), model, full)) for full in (False, True))
    assert len(some) == sum(len(precisions(engine)) for engine in ("litert", "ncnn", "onnx"))
    assert {case.form for case in some} == {"sources_group", "group_branches"}
    assert set(some) < set(every) and len({case.key for case in every}) == len(every)
    assert {case.form for case in every} >= {"literal", "dense", "group_group", "slices_4"}
    released = list(cases(SUBJECTS[-1], model, False))
    assert {(case.engine, case.form) for case in released} == {(case.engine, case.form) for case in every}
    assert sorted(released, key=lambda case: case.rank)[0].precision == "float32"
    assert forms_of("litert", 224, build_model("mobilenetv2_035", 10)) == ("dense", ["slices_2", "slices_4"])


def test_random_networks_have_the_statistics_of_the_images() -> None:
    ready = prepared(Subject("igcv3_w_010", 32, 2), None)
    assert ready.pixels.shape == (2, 32, 32, 3) and ready.inputs.shape == (2, 3, 32, 32)
    found = compare(ready.classifier.model, Fixed(ready), ready.inputs)
    assert found.float32_error < 1e-5 and found.error == pytest.approx(found.float32_error)
    assert not ready.classifier.model.training


class Fixed:
    """Session of the network in PyTorch."""

    card = ""

    def __init__(self, ready: Prepared) -> None:
        self.model = ready.classifier.model

    def bind(self, images: np.ndarray) -> Inference:
        return lambda: self.model(torch.from_numpy(images)).detach().numpy()


def row(**changes: Any) -> dict[str, Any]:
    """Return a row of the results."""
    plain = {"runtime": "ncnn 1", "images": 2, "error": 1e-6, "limit": 1e-4, "agreement": 1.0, "to_x86": 2e-6}
    return {**plain, "instructions": 50_000_000, **changes}


def test_the_page_by_hand() -> None:
    about = {"date": "2026-11-26", "emulator": "QEMU 7.2", "processor": "CPU", "igcv": "0", "torch": "2"}
    rows = {
        "mobilenetv2_100/32/ncnn/dense/float32": row(),
        "igcv3_d_p50/32/ncnn/sources_group/float32": row(instructions=30_000_000, agreement=0.5),
        "igcv3_d_p50/32/ncnn/dense/float32": row(instructions=40_000_000),
        f"{RELEASED}/32/ncnn/literal/float32": row(error=3e-6),
    }
    text = page({"machine": {**about, "photographs": "two photographs"}, "rows": rows})
    assert "runs the 4 files" in text
    assert "| ncnn, float32 | trained | 1 | 3.0e-06 | 2.0e-06 | 2 of 2 |" in text
    assert "| ncnn, float32 | random | 3 | 1.0e-06 | 2.0e-06 | 5 of 6 |" in text
    assert "within the tolerance of `igcv export` (1e-04 to 1e-04): 4 of 4." in text
    assert "| `mobilenetv2_100` | 50 M |" in text and "| `igcv3_d_100` | not run |" in text
    assert "| `igcv3_d_p50` | **0.60** (30 M, sources_group) |" in text
    assert (
        "| 32 pixels, float32 | `igcv3_d_p50`, ncnn |\n|---|---:|\n| dense | 40.0 M, 1e-06 |\n| sources_group |"
        in text
    )
    rows["igcv3_d_p50/32/ncnn/dense/float32"] = row(error=float("nan"))
    assert "3 of 4; beyond it: `igcv3_d_p50` at 32 pixels in ncnn, form dense." in page(
        {"machine": {**about, "photographs": "two photographs"}, "rows": rows}
    )


def test_an_unprepared_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Run studies/arm/root\.sh"):
        check_root(tmp_path)
