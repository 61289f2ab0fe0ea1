"""Untrusted .pt2 files: torch runs the code that an attack puts in a file, igcv refuses the file or drops the code."""

import contextlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igcv
from igcv.deploy.folding.network import Preprocess
from igcv.deploy.writers.program import write_program
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import open_session
from igcv.engines.pytorch import TorchSession
from igcv.errors import InputError
from tests.conftest import randomized

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLES = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"
IMAGES = torch.zeros(2, 3, 32, 32)
Entries = dict[str, bytes]


class Touch:
    """Object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    file = io.BytesIO()
    torch.save(Touch(marker), file)
    return file.getvalue()


@contextlib.contextmanager
def changed(entries: Entries, name: str = MODEL) -> Iterator[Any]:
    """Give the JSON of an entry to the block, and put it back."""
    value = json.loads(entries[name])
    yield value
    entries[name] = json.dumps(value).encode()


def weight_pickle(entries: Entries, marker: Path) -> None:
    with changed(entries, WEIGHTS) as config:
        next(iter(config["config"].values()))["use_pickle"] = True
    entries["data/weights/weight_0"] = pickled(marker)


def constant_pickle(entries: Entries, marker: Path) -> None:
    with changed(entries, WEIGHTS) as config:
        meta = next(iter(config["config"].values()))["tensor_meta"]
    payload = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": meta}
    with changed(entries, CONSTANTS) as config:
        config["config"]["mean"] = payload
    entries["data/constants/tensor_0"] = pickled(marker)


def old_weights(entries: Entries, marker: Path) -> None:
    entries["data/weights/model.pt"] = pickled(marker)


def sample_inputs(entries: Entries, marker: Path) -> None:
    entries[SAMPLES] = pickled(marker)


def size(entries: Entries, marker: Path) -> None:
    text = f"Add.__new__.__globals__['__builtins__']['open']({str(marker)!r}, 'w')"
    with changed(entries) as program:
        values = program["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = text


def unused_value(program: Any, name: str, **changes: Any) -> None:
    """Insert a copy of the first convolution, with changes, under another name."""
    graph = program["graph_module"]["graph"]
    conv = next(node for node in graph["nodes"] if node["target"] == "torch.ops.aten.conv2d.default")
    values = graph["tensor_values"]
    values[name] = values[conv["outputs"][0]["as_tensor"]["name"]]
    graph["nodes"].insert(0, conv | {"outputs": [{"as_tensor": {"name": name}}], "name": name} | changes)


def operator(entries: Entries, marker: Path) -> None:
    """The operator creates or changes a file on the disk."""
    given = {"filename": {"as_string": str(marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
    inputs = [{"name": name, "arg": value, "kind": 1} for name, value in given.items()]
    with changed(entries) as program:
        unused_value(program, "a", target="torch.ops.aten.from_file.default", inputs=inputs)


def guard(entries: Entries, marker: Path) -> None:
    with changed(entries) as program:
        program["guards_code"] = [f"__import__('pathlib').Path({str(marker)!r}).touch() is None"]


def parameter_name(entries: Entries, marker: Path) -> None:
    """The name ends a text in the function that torch generates."""
    name = f"a') if open('{marker}', 'w') else (self, 'a".replace("'", '"')
    with changed(entries) as program, changed(entries, WEIGHTS) as config:
        specs = program["graph_module"]["signature"]["input_specs"]
        parameter = next(spec["parameter"] for spec in specs if "parameter" in spec)
        config["config"][name] = config["config"].pop(parameter["parameter_name"])
        parameter["parameter_name"] = name


RUN = (weight_pickle, constant_pickle, old_weights, size, operator, guard, parameter_name)
DROPPED = (sample_inputs,)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "genuine.pt2"
    return exported(path, "igcv1_l4m2_d20", dynamic_size=True)


def exported(path: Path, name: str, form: str = "literal", inside: bool = False, **settings: Any) -> Path:
    network = igcv.fold(randomized(name), form)
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8) if inside else IMAGES[:1]
    whole = nn.Sequential(Preprocess([0.5] * 3, [0.5] * 3), network).eval() if inside else network
    write_program(
        whole,
        images,
        path,
        ExportSettings(format="torch", with_preprocessing=inside, **settings),
        {"igcv": "{}"},
    )
    return path


def attacked(genuine: Path, path: Path, attack: Callable[[Entries, Path], None], marker: Path) -> Path:
    """Write a program with an attack that creates the file `marker`."""
    with zipfile.ZipFile(genuine) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    attack(entries, marker)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"program/{name}", data)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attack", RUN + DROPPED)
def test_code_in_a_program(genuine: Path, tmp_path: Path, attack: Callable[[Entries, Path], None]) -> None:
    marker = tmp_path / "ran"
    path = attacked(genuine, tmp_path / "x.pt2", attack, marker)
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(IMAGES)
    assert marker.exists(), "torch alone does not run the code"
    marker.unlink()
    if attack in DROPPED:
        found = open_session(path).bind(IMAGES.numpy())()
        np.testing.assert_array_equal(found, open_session(genuine).bind(IMAGES.numpy())())
    else:
        with pytest.raises(
            InputError, match=r"x\.pt2' is not a program as igcv export writes it \(.*\)\. Open"
        ):
            open_session(path).bind(IMAGES.numpy())()
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_the_old_layout(genuine: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "x.pt2"
    with zipfile.ZipFile(genuine) as archive:
        model = archive.read(f"{genuine.stem}/{MODEL}")
    version = json.loads(model)["schema_version"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", f"{version['major']}.{version['minor']}")
        archive.writestr("serialized_exported_program.json", model)
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", pickled(marker))
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert marker.exists(), "torch alone does not run the code"
    marker.unlink()
    with pytest.raises(InputError, match="it has an entry 'version'"):
        open_session(path)
    assert not marker.exists()


def add(name: str, data: bytes) -> Callable[[Entries, Path], None]:
    return lambda entries, marker: entries.update({name: data})


def at(*keys: Any, value: Any, name: str = MODEL) -> Callable[[Entries, Path], None]:
    """Return a change of one value in the JSON of an entry."""

    def change(entries: Entries, marker: Path) -> None:
        with changed(entries, name) as place:
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = value

    return change


NODE = ("graph_module", "graph", "nodes", 0)
CALL = ("graph_module", "module_call_graph", 0, "signature")
BIG = {"as_int": 2**40}


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (add("data/aotinductor/model/a.so", b""), "entry 'program/data/aotinductor"),
        (add("data/executorch/a.pte", b""), "entry 'program/data/executorch"),
        (add("data/constants/custom_obj_0", b""), "entry 'program/data/constants/custom"),
        (add("data/constants/opaque_obj_0", b""), "entry 'program/data/constants/opaque"),
        (add("models/other.json", b"{}"), "entry 'program/models/other"),
        (add(MODEL, b""), "model.json has 0 bytes"),
        (add(MODEL, b"[" * 10**5), "recursion"),
        (add(MODEL, b"[]"), r"model.json is \[\]"),
        (add(MODEL, b"{"), "Expecting"),
        (at(*NODE, "target", value="torch.serialization.os.system"), "target is 'torch.serialization"),
        (at(*NODE, "name", value="a; b"), "name is 'a; b'"),
        (at(*CALL, "forward_arg_names", value=["x=print()"]), "forward_arg_names is"),
        (at(*CALL, "in_spec", value="[]"), "in_spec is"),
        (at("verifiers", value=["ATEN"]), "verifiers is 'ATEN'"),
        (at("guards_code", value=["9**9**9**9"]), "guards_code is"),
        (at("guards_code", value=["1" * 1900 + "!"]), "guards_code is"),
        (at("range_constraints", value={"u999999999": {}}), "range_constraints is 'u9"),
        (at("config", value={"a.weight": {}}, name=WEIGHTS), "config is 'a.weight'"),
        (
            at("config", "stem.0.weight", "tensor_meta", "sizes", value=[BIG], name=WEIGHTS),
            "bytes and the shape",
        ),
        (at("config", "stem.0.weight", "path_name", value="../a", name=WEIGHTS), "path_name is '../a'"),
        (at("config", value={"stem.0.weight": {}}, name=CONSTANTS), "config is 'stem"),
    ],
)
def test_what_igcv_does_not_write(
    genuine: Path, tmp_path: Path, attack: Callable[[Entries, Path], None], why: str
) -> None:
    path = attacked(genuine, tmp_path / "x.pt2", attack, tmp_path / "ran")
    start = time.process_time()
    with pytest.raises(InputError, match=why) as caught:
        open_session(path)
    assert time.process_time() - start < 5
    assert "\n" not in str(caught.value)


def test_compressed_and_repeated_entries(genuine: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"a/{MODEL}", b" " * 10**6)
    with pytest.raises(InputError, match="its archive is compressed"):
        open_session(path)
    path.write_bytes(genuine.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("genuine/models/model.json", b"{}")
    with pytest.raises(InputError, match="it has an entry 'genuine/models"):
        open_session(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="not a zip file"):
        open_session(path)


@pytest.mark.parametrize(
    ("name", "form", "inside", "dynamic"),
    [
        ("igcv1_l8m4_d20_ident", "dense", True, True),
        ("igcv1_l4m2_d20", "literal", False, True),
        ("igcv1_l4m4_imagenet18", "literal", False, False),
        ("igcv2_c64_d20", "literal", False, True),
        ("igcv2_mobilenet_025", "dense", True, False),
        ("mobilenetv2_035_mxnet", "dense", True, True),
        *(("igcv3_d_025", form, False, False) for form in ("literal", "sources", "slices_2", "branches")),
        ("igcv3_d_025", "partial_sums", True, True),
    ],
)
def test_genuine_programs(tmp_path: Path, name: str, form: str, inside: bool, dynamic: bool) -> None:
    path = exported(tmp_path / "x.pt2", name, form, inside, dynamic_size=dynamic)
    shape = (2, 40, 48) if dynamic else (3, 32, 32)
    images = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    given = images if inside else images.permute(0, 3, 1, 2).contiguous() / 255
    session = open_session(path)
    expected = TorchSession(torch.export.load(path).module()).bind(given.numpy())()
    np.testing.assert_array_equal(session.bind(given.numpy())(), expected)
    assert session.card == "{}"


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax"])
def test_genuine_poolings(tmp_path: Path, pool: str) -> None:
    model = igcv.create_model("igcv1_l4m2_d20", 4, input_size=32, global_pool=pool).eval()
    path = tmp_path / "x.pt2"
    write_program(igcv.fold(model, "dense"), IMAGES, path, ExportSettings(format="torch"), {})
    found = open_session(path).bind(IMAGES.numpy())()
    torch.testing.assert_close(torch.from_numpy(found), model(IMAGES).detach(), rtol=1e-3, atol=1e-3)
