"""Tests of ExecuTorch files: agreement with PyTorch, refused forms, sessions, and invalid input."""

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igcv
from igcv.deploy.choose import fastest_runs
from igcv.deploy.compare import compare
from igcv.deploy.writers.executorch import write_executorch
from igcv.deploy.writers.graph import FormError
from igcv.deploy.writers.session import session_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.executorch import ExecuTorchSession
from igcv.errors import InputError
from tests.conftest import Igcv, randomized

pytest.importorskip("executorch", reason="igcv[executorch] is not installed")

RELEASED = "igcv3_w_025.digits"
SETTINGS = ExportSettings(format="executorch")
BATCH = 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of a trained network that takes two images at once."""
    file = tmp_path_factory.mktemp("executorch") / "digits.pte"
    written = igcv.export(RELEASED, file, data="digits", batch_size=BATCH)
    assert set(written.forms.values()) == {"group_branches"} and written.comparison.agreement == 1
    assert [path.name for path in file.parent.iterdir()] == ["digits.pte"]
    assert written.bytes == file.stat().st_size
    return file


def state_of_process() -> tuple[Any, ...]:
    """Return what a conversion must leave as it is: threads, log levels, log handlers and filters of warnings."""
    root = logging.root
    return torch.get_num_threads(), root.level, root.manager.disable, [*root.handlers], [*warnings.filters]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("igcv1_l4m4_imagenet18", "group_branches"),  # with a max pooling
        ("igcv2_c64_d20", "partial_sums"),
        ("igcv3_w_025", "literal"),
        ("igcv3_w_025", "sources_group"),
        ("mobilenetv2_035_mxnet", "dense"),
    ],
)
def test_agreement_with_pytorch(name: str, form: str) -> None:
    model = randomized(name)
    folded = igcv.fold(model, form).to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 32, 32)
    before = {key: tensor.clone() for key, tensor in folded.state_dict().items()}
    places = {key: tensor.stride() for key, tensor in folded.state_dict().items()}
    state = state_of_process()
    session = session_of(folded, images[:BATCH].to(memory_format=torch.channels_last), "executorch", 2)
    found = compare(model, session, images.numpy())
    assert found.error < found.limit and found.agreement == 1
    after = folded.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert {key: tensor.stride() for key, tensor in after.items()} == places
    assert state == state_of_process()


def test_a_refused_form_leaves_nothing(tmp_path: Path, igcv_command: Igcv) -> None:
    outcome = igcv_command("export", RELEASED, "--out", tmp_path / "a.pte", "--form", "group_group")
    assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("igcv: the form 'group_group' is slow in ExecuTorch: ")
    assert "expected one delegate. Choose another form." in outcome.err
    assert not list(tmp_path.iterdir())


class Joined(nn.Module):
    """The outputs of convolutions, concatenated `copies` times, and pooled."""

    def __init__(self, convolutions: int, copies: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 2, 1) for _ in range(convolutions))
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.copies = copies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(torch.cat([layer(x) for layer in self.layers] * self.copies, 1))


def test_concatenations() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 4, 4)
    for count in (1, 5, 7):  # XNNPACK concatenates two to five tensors
        network = Joined(count, 1).eval()
        found = session_of(network, images, "executorch", 1).bind(images.numpy())()
        np.testing.assert_allclose(found, network(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_measurements_leave_out_refused_forms() -> None:
    probes = [Joined(1, 2), Joined(2, 1), Joined(1, 2)]
    first, second, third = fastest_runs(probes, (3, 4, 4), engine="executorch", batch_size=1, threads=1)
    assert first == third == math.inf and 0 < second < 1
    assert fastest_runs(probes[:1], (3, 4, 4), engine="executorch", batch_size=1, threads=1) == [math.inf]


def test_evaluate_and_predict(exported: Path, igcv_command: Igcv) -> None:
    plain, file = (
        igcv_command("evaluate", each, "--data", "digits", "--json") for each in (RELEASED, exported)
    )
    assert plain.status == file.status == 0 and file.err == plain.err, file.err
    before, after = json.loads(plain.out), json.loads(file.out)
    assert before["images"] == after["images"] == 359 and before["per_class"] == after["per_class"]
    image = Path(igcv.__file__).parents[1] / "docs" / "web.png"
    rows = [igcv_command("predict", each, image, "--json") for each in (RELEASED, exported)]
    assert rows[1].status == 0 and rows[1].err == "", rows[1].err
    classes = [[row["class"] for row in json.loads(each.out)["predictions"]] for each in rows]
    assert classes[0] == classes[1]
    card, trained = igcv.load(exported).card, igcv.load(RELEASED).card
    assert (card.model, card.class_names, card.results) == (
        trained.model,
        trained.class_names,
        trained.results,
    )
    assert card.source["export"]["batch_size"] == BATCH


def test_latency(exported: Path, igcv_command: Igcv) -> None:
    outcome = igcv_command("bench", "latency", exported, "--batch", 3, "--rounds", 1, "--json")
    assert outcome.status == 0 and outcome.err == "", outcome.err
    assert json.loads(outcome.out)["median_ms"] > 0


def test_sessions_share_the_thread_pool(exported: Path) -> None:
    threads = torch.get_num_threads()
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
    runs = [ExecuTorchSession.open(exported, count).bind(images) for count in (1, 2, 1)]
    expected = igcv.load(RELEASED).model(torch.from_numpy(images)).detach().numpy()
    for number in (0, 1, 2, 1, 0, 0, 2, 1, 0):  # each change of threads replaces the pool
        np.testing.assert_allclose(runs[number](), expected, rtol=1e-3, atol=1e-3)
    assert torch.get_num_threads() == threads


def test_wrong_arrays(exported: Path) -> None:
    session = ExecuTorchSession.open(exported, 1)
    good = np.zeros((1, 3, 16, 16), np.float32)
    for images in (good.astype(np.float64), good.transpose(0, 2, 3, 1), good[0], good[:0], good[..., :15]):
        with pytest.raises(InputError, match=r"expected float32 \(N, 3, 16, 16\) with N >= 1"):
            session.bind(images)
    turned = np.random.default_rng(0).standard_normal((1, 16, 16, 3), np.float32).transpose(0, 3, 1, 2)
    assert np.array_equal(session.bind(turned)(), session.bind(turned.copy())())


def test_damaged_and_foreign_files(exported: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    whole = exported.read_bytes()
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    write_executorch(network, torch.zeros(1, 3, 4, 4), tmp_path / "foreign.pte", SETTINGS, {})
    for name, content in (("empty", b""), ("text", b"no program"), ("cut", whole[:-5000])):
        (tmp_path / f"{name}.pte").write_bytes(content)
    for name, message in (
        ("empty", "engine 'executorch' cannot open"),
        ("text", "engine 'executorch' cannot open"),
        ("cut", "engine 'executorch' cannot open"),
        ("foreign", "has no igcv card"),
        ("none", "file not found"),
    ):
        outcome = igcv_command("evaluate", tmp_path / f"{name}.pte", "--data", "digits")
        assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1, outcome.err


def test_wrong_settings_leave_nothing(tmp_path: Path, igcv_command: Igcv) -> None:
    for words, message in (
        (("--with-preprocessing",), "Normalize the images in your program"),
        (("--float16",), "the format 'executorch' does not support --float16"),
        (("--dynamic-size",), "the format 'executorch' does not support --dynamic-size"),
    ):
        outcome = igcv_command("export", RELEASED, "--out", tmp_path / "a.pte", *words)
        assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1, outcome.err
    assert not list(tmp_path.iterdir())
    outcome = igcv_command("export", RELEASED, "--out", "/proc/a.pte")
    assert outcome.status == 2 and outcome.err.startswith("igcv: cannot write to '/proc'"), outcome.err


def test_a_missing_package_is_one_line(
    exported: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def incomplete(name: str) -> Any:
        raise ImportError(f"no module {name}\nmore")

    commands = (("export", RELEASED, "--out", tmp_path / "a.pte"), ("evaluate", exported, "--data", "digits"))
    monkeypatch.setattr("igcv.engines.executorch.import_module", incomplete)
    for words in commands:
        outcome = igcv_command(*words)
        assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome.err
        assert "cannot import the package executorch (no module executorch." in outcome.err
        assert "pip install --upgrade 'igcv[executorch]'" in outcome.err
    monkeypatch.setattr("igcv.extras.find_spec", lambda name: None)
    for words in commands:
        outcome = igcv_command(*words)
        assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome.err
        assert "which is not installed: pip install 'igcv[executorch]'" in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_not_one_delegate() -> None:
    with pytest.raises(FormError, match=r"this network is slow in ExecuTorch: \d+ XNNPACK delegates and \d+"):
        session_of(Joined(1, 2).eval(), torch.zeros(1, 3, 4, 4), "executorch", 1)
