"""Reader of torch.export programs from untrusted sources.

`torch.export.load` can run code that a file contains: pickles, functions called by name, expressions, and names inside
generated Python code. `read_program` therefore rebuilds a file from the parts in the tables below, which are the parts
that `igcv export` writes, and loads the rebuilt file. It drops what a network does not need: the sample inputs (a
pickle, without which torch runs no guards), stack traces and unknown keys.
"""

import json
import math
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from igcv.engines.program_rules import ByName, OneOf, Optional, kept
from igcv.errors import InputError
from igcv.weights.card import CARD_KEY

MODEL = "models/model.json"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
CARD = f"extra/{CARD_KEY}"
WEIGHT = re.compile(r"weight_\d{1,6}")
ENTRIES = re.compile(
    rf"{MODEL}|{WEIGHTS_CONFIG}|{CONSTANTS_CONFIG}|{SAMPLE_INPUTS}|{CARD}|data/weights/{WEIGHT.pattern}"
    r"|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
)
LARGEST_JSON = 2**26  # bytes; a network with the most paths per block has 2**22

OPERATORS = frozenset(
    {f"torch.ops.aten.{name}" for name in (
        *("conv2d.default", "linear.default", "hardtanh_.default", "relu_.default", "add.Tensor"),
        *("adaptive_avg_pool2d.default", "adaptive_max_pool2d.default", "max_pool2d.default"),
        *("cat.default", "chunk.default", "flatten.using_ints"),
        *("view.default", "transpose.int", "reshape.default", "sym_size.int"),
        *("permute.default", "to.dtype", "sub.Tensor", "div.Tensor", "mul.Tensor"),
        "_assert_tensor_metadata.default",
    )} | {"_operator.add", "_operator.floordiv"}
)  # fmt: skip

INTEGER = range(-(2**63), 2**63)
NATURAL = range(2**48)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
MODULE = re.compile(r"[a-z0-9_.@]{0,200}")
PARAMETER = re.compile(
    r"(?:(?:stem|blocks|paths|body|shortcut|head|classifier|\d{1,4})\.){1,20}(?:weight|bias|mean|std)"
)
SYMBOL = re.compile(r"s\d{1,6}")
# Sizes as sums, products, quotients and minima of integers and the sizes of the input; the conditions on them.
# A number matches in one way only: otherwise the time to refuse a text of digits would be exponential.
EXPRESSION = re.compile(
    rf"(?=.{{1,2000}}\Z)(?:(?:Add|Mul|FloorDiv|Min|Max)\(|Symbol\('{SYMBOL.pattern}', positive=True, integer=True\)"
    r"|Integer\(-?\d{1,18}\)|, |\))+"
)
GUARD = re.compile(
    r"(?=.{1,2000}\Z)(?:L\['[a-z_]{1,99}'\]\.size\(\)\[\d\]|(?:min|max)\(|\d{1,18}(?!\d)|[-+<>(), ]|\*(?!\*)|//"
    r"|[<>=!]=)+"
)
FLOAT, TYPES = 7, frozenset({1, 5, 7})  # float32; uint8, int64, float32
DEVICE = {"type": frozenset({"cpu"}), "index": frozenset({None})}
STRIDED = frozenset({7})
TENSOR = {"name": NAME}
ARGUMENT = OneOf({"as_tensor": TENSOR})
SIZE = OneOf(
    {
        "as_int": INTEGER,
        "as_expr": {"expr_str": EXPRESSION, "hint": Optional(OneOf({"as_int": INTEGER}))},
    }
)
META = {
    "dtype": TYPES,
    "sizes": [SIZE],
    "requires_grad": bool,
    "device": DEVICE,
    "strides": [SIZE],
    "storage_offset": OneOf({"as_int": NATURAL}),
    "layout": STRIDED,
}
SYMBOLIC = OneOf({"as_name": NAME, "as_int": INTEGER})
NODE = {
    "target": OPERATORS,
    "inputs": [
        {
            "name": NAME,
            "arg": OneOf(
                {
                    "as_none": bool,
                    "as_tensor": TENSOR,
                    "as_tensors": [TENSOR],
                    "as_int": INTEGER,
                    "as_ints": [INTEGER],
                    "as_float": float,
                    "as_bool": bool,
                    "as_scalar_type": TYPES,
                    "as_layout": STRIDED,
                    "as_device": DEVICE,
                    "as_sym_int": SYMBOLIC,
                    "as_sym_ints": [SYMBOLIC],
                }
            ),
            "kind": range(3),
        }
    ],
    "outputs": [OneOf({"as_tensor": TENSOR, "as_tensors": [TENSOR], "as_sym_int": OneOf({"as_name": NAME})})],
    "metadata": {},
    "name": Optional(NAME),
}
NOTHING = [frozenset[Any]()]
ONE_INPUT = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": '
    '"null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, {"type": "builtins.dict", '
    '"context": "[]", "children_spec": []}]}]'
)
ONE_OUTPUT = '[1, {"type": null, "context": null, "children_spec": []}]'
PROGRAM = {
    "graph_module": {
        "graph": {
            "inputs": [ARGUMENT],
            "outputs": [ARGUMENT],
            "nodes": [NODE],
            "tensor_values": ByName(NAME, META),
            "sym_int_values": ByName(NAME, SIZE),
            "sym_bool_values": {},
            "sym_float_values": {},
            "custom_obj_values": {},
            "is_single_tensor_return": bool,
        },
        "signature": {
            "input_specs": [
                OneOf(
                    {
                        "parameter": {"arg": TENSOR, "parameter_name": PARAMETER},
                        "buffer": {"arg": TENSOR, "buffer_name": PARAMETER, "persistent": bool},
                        "user_input": {"arg": ARGUMENT},
                    }
                )
            ],
            "output_specs": [OneOf({"user_output": {"arg": ARGUMENT}})],
        },
        "module_call_graph": [
            {
                "fqn": MODULE,
                "signature": Optional(
                    {
                        "inputs": NOTHING,
                        "outputs": NOTHING,
                        "in_spec": frozenset({ONE_INPUT}),
                        "out_spec": frozenset({ONE_OUTPUT}),
                        "forward_arg_names": [NAME],
                    }
                ),
            }
        ],
        "metadata": {},
        "treespec_namedtuple_fields": {},
    },
    "opset_version": ByName(NAME, NATURAL),
    "range_constraints": ByName(SYMBOL, {"min_val": Optional(INTEGER), "max_val": Optional(INTEGER)}),
    "schema_version": {"major": NATURAL, "minor": NATURAL},
    "verifiers": [frozenset({"TRAINING"})],
    "torch_version": re.compile(r"[a-z0-9.+]{1,40}"),
    "guards_code": [GUARD],
}
SIZES = [OneOf({"as_int": NATURAL})]
WEIGHTS = {
    "config": ByName(
        PARAMETER,
        {
            "path_name": WEIGHT,
            "is_param": bool,
            "use_pickle": frozenset({False}),
            "tensor_meta": META | {"dtype": frozenset({FLOAT}), "sizes": SIZES, "strides": SIZES},
        },
    )
}
CONSTANTS = {"config": ByName(re.compile(r"(?!)"), frozenset[Any]())}


def read_program(path: Path) -> tuple[torch.export.ExportedProgram, str]:
    """Return the program in a .pt2 file, and the card of the file (empty if it has none). Nothing in the file is run.

    Raises:
        InputError: if the file has parts that `igcv export` does not write.
    """
    try:
        entries = _entries(path)
        rebuilt = _rebuilt(entries)
        card = entries.get(CARD, b"").decode()
    except (ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{path}' is not a program as igcv export writes it ({error}). Open only .pt2 files of igcv export."
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)  # PyTorch 2.11
        return torch.export.load(rebuilt), card


def _entries(path: Path) -> dict[str, bytes]:
    """Return the entries of an archive by name, without the folder that they share; ValueError if one is unknown."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        # Uncompressed entries bound the memory by the size of the file.
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("its archive is compressed")
        if sum(info.file_size for info in infos) > path.stat().st_size:
            raise ValueError("its entries overlap")
        for info in infos:
            name = info.filename.partition("/")[2]
            if not ENTRIES.fullmatch(name) or name in found:
                raise ValueError(f"it has an entry {info.filename[:80]!r}")
            found[name] = archive.read(info)
    return found


def _rebuilt(entries: dict[str, bytes]) -> BytesIO:
    """Return an archive of the parts of a program that the tables keep."""
    from torch.export.pt2_archive import PT2ArchiveWriter  # takes seconds, which other files do not need

    program = _kept_json(entries, MODEL, PROGRAM)
    weights = _kept_json(entries, WEIGHTS_CONFIG, WEIGHTS)
    for name, weight in weights["config"].items():
        shape = [size["as_int"] for size in weight["tensor_meta"]["sizes"]]
        stored = entries.get(f"data/weights/{weight['path_name']}", b"")
        if len(shape) > 4 or len(stored) != 4 * math.prod(shape):
            raise ValueError(f"weight '{name}' has {len(stored)} bytes and the shape {shape[:5]}")
    written = {
        MODEL: program,
        WEIGHTS_CONFIG: weights,
        CONSTANTS_CONFIG: _kept_json(entries, CONSTANTS_CONFIG, CONSTANTS),
    }
    rebuilt = BytesIO()
    with PT2ArchiveWriter(rebuilt) as writer:
        for name, value in written.items():
            writer.write_string(name, json.dumps(value))
        for name in {weight["path_name"] for weight in weights["config"].values()}:
            writer.write_bytes(f"data/weights/{name}", entries[f"data/weights/{name}"])
        writer.write_bytes(SAMPLE_INPUTS, b"")
    rebuilt.seek(0)
    return rebuilt


def _kept_json(entries: dict[str, bytes], name: str, rule: dict[str, Any]) -> Any:
    """Return what a rule keeps of the JSON in an entry; ValueError if the entry is missing, too large or breaks it."""
    if not 0 < len(entries.get(name, b"")) <= LARGEST_JSON:
        raise ValueError(f"{name} has {len(entries.get(name, b''))} bytes")
    return kept(json.loads(entries[name]), rule, name)
