"""Page of the study in Markdown."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from igcv.deploy.folding.forms import FORMS, LITERAL
from studies.arm.plan import BASELINE, COMPARED, FLOAT16, FLOAT32, INT8, LARGE, RELEASED, SMALL
from studies.markdown import table_row

Row = Mapping[str, Any]
ARITHMETIC = {  # (engine, precision) -> what the engine computes with on ARM
    ("litert", FLOAT32): "float32",
    ("litert", FLOAT16): "float16 weights, float32 arithmetic",
    ("ncnn", FLOAT32): "float32",
    ("ncnn", FLOAT16): "float16 weights, float16 arithmetic",
    ("onnx", FLOAT32): "float32",
    ("onnx", INT8): "int8",
}
NAMES = {"litert": "LiteRT", "ncnn": "ncnn", "onnx": "ONNX Runtime"}


def page(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    rows: list[Row] = [{**row, **_named(key)} for key, row in results["rows"].items()]
    about = results["machine"]
    sections: tuple[tuple[str, Callable[[list[Row]], Iterator[str]]], ...] = (
        ("## Results", _results),
        ("## Instructions per image", _instructions),
        ("## Forms", _forms),
    )
    lines = ["# ARM, emulated: results, not time", "", *_introduction(rows, about)]
    for title, write in sections:
        lines += ["", title, "", *write(rows)]
    return "\n".join([*lines, ""])


def _named(key: str) -> dict[str, str | int]:
    """Return the parts of a key by name."""
    network, size, engine, form, precision = key.split("/")
    return {"network": network, "size": int(size), "engine": engine, "form": form, "precision": precision}


def _introduction(rows: list[Row], about: Row) -> Iterator[str]:
    """Yield what was run, and where."""
    engines = ", ".join(sorted({row["runtime"] for row in rows}))
    yield (
        f"`python -m studies.arm` exports networks on x86, runs the {len(rows)} files with the engines' kernels for "
        "64-bit ARM in an emulator, and compares the logits. **No ARM processor was used.** Emulation shows whether "
        "the results are right. It shows nothing about time on ARM."
    )
    yield ""
    yield (
        f"Run {about['date']}: {about['emulator']} emulating a Cortex-A76 on {about['processor']}; {engines}, one "
        f"thread, batch 1; igcv {about['igcv']}, torch {about['torch']}. Images: 1 to 4 crops of "
        f"{about['photographs']}. `{RELEASED}` is trained (with the weights of "
        "`cifar_cpu.toml`. The weights of `cifar_speed.toml` have replaced them). The other networks have random "
        "weights, and the batch norm statistics of 16 crops. Their logits say nothing about accuracy. "
        "`python -m studies.arm run DIR --full` runs every form in every precision."
    )


def _results(rows: list[Row]) -> Iterator[str]:
    """Yield the table of differences by engine, precision and kind of weights."""
    yield table_row(
        [
            "engine, arithmetic on ARM",
            "weights",
            "files",
            "difference to PyTorch",
            "difference to x86",
            "same class",
        ]
    )
    yield "|---|---|---:|---:|---:|---:|"
    for (engine, precision), arithmetic in ARITHMETIC.items():
        for trained in (True, False):
            found = [
                row
                for row in rows
                if (row["engine"], row["precision"]) == (engine, precision)
                and (row["network"] == RELEASED) == trained
            ]
            if found:
                weights = "trained" if trained else "random"
                yield table_row([f"{NAMES[engine]}, {arithmetic}", weights, *_summary(found)])
    yield ""
    yield (
        "Differences: the largest of all logits, relative to the largest logit. PyTorch: the trained network in "
        "float64. x86: the same file in the same engine, where ncnn computes in float32. Same class: images with the "
        "top-1 class of PyTorch."
    )
    yield ""
    yield _verdict([row for row in rows if row["precision"] == FLOAT32])


def _summary(rows: list[Row]) -> list[str]:
    """Return the number of files, the largest differences and the images with the same class."""
    images = sum(row["images"] for row in rows)
    same = sum(round(row["agreement"] * row["images"]) for row in rows)
    largest = (max(row[name] for row in rows) for name in ("error", "to_x86"))
    return [str(len(rows)), *(f"{value:.1e}" for value in largest), f"{same} of {images}"]


def _verdict(rows: list[Row]) -> str:
    """Return which float32 files exceed the tolerance of `igcv export`."""
    failed = [row for row in rows if not row["error"] < row["limit"]]
    names = ", ".join(
        f"`{row['network']}` at {row['size']} pixels in {NAMES[row['engine']]}, form {row['form']}"
        for row in failed
    )
    limits = f"{min(row['limit'] for row in rows):.0e} to {max(row['limit'] for row in rows):.0e}"
    return (
        f"float32 files within the tolerance of `igcv export` ({limits}): {len(rows) - len(failed)} of {len(rows)}"
        f"{f'; beyond it: {names}' if names else ''}."
    )


def _instructions(rows: list[Row]) -> Iterator[str]:
    """Yield the tables of instructions of one image, relative to the baseline, by image size."""
    yield (
        f"**A hint, not a speed**: executed ARM instructions of one image, in millions, and relative to `{BASELINE}` "
        "in the same engine and precision. Instructions take different times, and memory does not count. The "
        "brackets name the form: of the forms that were run in this precision, the one with the fewest instructions."
    )
    for size in (SMALL, LARGE):
        of_size = [row for row in rows if row["size"] == size and row["network"] in COMPARED]
        columns = [c for c in ARITHMETIC if any((r["engine"], r["precision"]) == c for r in of_size)]
        if not columns:
            continue
        yield ""
        yield table_row(
            [f"{size} pixels", *(f"{NAMES[engine]}, {precision}" for engine, precision in columns)]
        )
        yield "|---|" + "---:|" * len(columns)
        for network in COMPARED:
            yield table_row([f"`{network}`", *(_ratio(of_size, network, *column) for column in columns)])


def _ratio(rows: list[Row], network: str, engine: str, precision: str) -> str:
    """Return the fewest instructions of a network, relative to the baseline in the same engine and precision."""
    of_column = [row for row in rows if (row["engine"], row["precision"]) == (engine, precision)]
    fewest_last = sorted(of_column, key=lambda row: -row["instructions"])
    found = {row["network"]: row for row in fewest_last}
    if network not in found:
        return "not run"
    count = found[network]["instructions"]
    millions = f"{count / 1e6:.0f} M"
    if BASELINE not in found or network == BASELINE:
        return millions
    return f"**{count / found[BASELINE]['instructions']:.2f}** ({millions}, {found[network]['form']})"


def _forms(rows: list[Row]) -> Iterator[str]:
    """Yield a table of forms for each image size and precision in which networks were run in several forms."""
    yield "Each cell: millions of instructions of one image (a hint, not a speed), difference to PyTorch."
    groups = product((SMALL, LARGE), dict.fromkeys(precision for _, precision in ARITHMETIC))
    for size, precision in groups:
        columns: dict[tuple[str, str], dict[str, Row]] = {}
        for row in rows:
            if (row["size"], row["precision"]) == (size, precision):
                columns.setdefault((row["network"], row["engine"]), {})[row["form"]] = row
        columns = {column: forms for column, forms in columns.items() if len(forms) > 1}
        if not columns:
            continue
        yield ""
        heads = (f"`{network}`, {NAMES[engine]}" for network, engine in columns)
        yield table_row([f"{size} pixels, {precision}", *heads])
        yield "|---|" + "---:|" * len(columns)
        for form in (LITERAL, *FORMS):
            if any(form in forms for forms in columns.values()):
                yield table_row([form, *(_of_form(forms.get(form)) for forms in columns.values())])


def _of_form(row: Row | None) -> str:
    """Return the instructions and the difference of a file."""
    return "not run" if row is None else f"{row['instructions'] / 1e6:.1f} M, {row['error']:.0e}"
