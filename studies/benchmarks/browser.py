"""Time per image in a browser: IGCV3 and MobileNetV2 in float32 and int8, with the worker of `igcv web`.

Each network has its own worker. In each round, the workers classify one image each, one after another. The weights are
random, because their values do not change the time. The time is that of the network only, as displayed on the page.

    python studies/benchmarks/browser.py     # some minutes

Requires igcv[deploy], npm, Chromium and Playwright (pip install playwright).
"""

import argparse
import http.server
import json
import os
import shutil
import sys
import tempfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import igcv
from igcv.data.preprocessing import IMAGENET, short_side
from igcv.deploy.inference import fold
from igcv.deploy.write import write_network
from igcv.deploy.writers.settings import ExportSettings
from igcv.terminal import counted
from igcv.web.engine import PACKAGE, VERSION, engine_files
from igcv.web.server import Handler
from igcv.web.writer import FORM, PAGE
from studies.benchmarks.conditions import host_and_versions
from studies.benchmarks.spreads import spread

NETWORKS = ("mobilenetv2_100", "igcv3_d_100", "igcv3_d_050")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEASURE = """
async ({ files, preprocessing, rounds }) => {
  const side = preprocessing.input_size;
  const canvas = new OffscreenCanvas(side, side);
  canvas.getContext("2d").fillRect(0, 0, side, side);
  const ask = (worker, request, transferred = []) =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.answer));
      if (request) worker.postMessage({ id: 1, ...request }, transferred);
    });
  const workers = [];
  let threads;
  for (const file of files) {
    const worker = new Worker("worker.js", { type: "module" });
    await ask(worker, null);
    ({ threads } = await ask(worker, { action: "open", file: new URL(file, location).href, preprocessing }));
    workers.push(worker);
  }
  const times = files.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, worker] of workers.entries()) {
      const image = await createImageBitmap(canvas);
      times[i].push((await ask(worker, { action: "classify", image }, [image])).networkMs);
    }
  return { threads, times };
}
"""


class Plain(Handler):
    """Request handler without the headers that allow a page several threads."""

    def end_headers(self) -> None:
        super(Handler, self).end_headers()


def write_files(folder: Path, size: int) -> list[tuple[str, Path]]:
    """Write the worker, its engine and all networks, and return the labels and files of the networks."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    (folder / "empty.html").touch()
    (folder / "ort").mkdir()
    for file in engine_files(partial(print, file=sys.stderr)):
        shutil.copy(file, folder / "ort")
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    pre = replace(IMAGENET, input_size=size)
    settings = ExportSettings(format="onnx", with_preprocessing=True)
    found = []
    for name in NETWORKS:
        torch.manual_seed(0)
        folded = fold(igcv.create_model(name, input_size=size).eval(), FORM)
        for kind, calibration in (("float32", None), ("int8", pixels)):
            file = folder / f"{name}_{kind}.onnx"
            write_network(folded, file, settings, pre, calibration)
            found.append((f"{name} {kind}", file))
    return found


def time_in_browser(
    folder: Path, files: list[Path], size: int, rounds: int, isolated: bool
) -> dict[str, Any]:
    """Return the threads, and the milliseconds of every network in every round. Isolated pages have several threads."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("IGCV_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    handler = partial(Handler if isolated else Plain, directory=str(folder))
    pre = replace(IMAGENET, input_size=size)
    preprocessing = {**pre.to_dict(), "short_side": short_side(pre)}
    given = {"files": [file.name for file in files], "preprocessing": preprocessing, "rounds": rounds}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as running:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/empty.html")
        found = tab.evaluate(MEASURE, given)
        found["browser"] = f"Chromium {opened.version}"
        opened.close()
        server.shutdown()
    return found


def page(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    about = result["machine"]
    lines = [
        "# Time per image in a browser",
        "",
        f"Measured {about['date']}: {about['processor']}, {about['cores']} cores, headless {result['browser']}, "
        f"{PACKAGE} {VERSION}, torch {about['torch']}; {result['size']} px, random weights. MB: size "
        f"of the downloaded network. Median (min to max) of {result['rounds']} interleaved rounds: each round measures "
        "every network. Ratios are taken within each round. "
        "Written by `python studies/benchmarks/browser.py`.",
    ]
    for threads, times in result["times_ms"].items():
        base = next(iter(times.values()))
        lines += [
            "",
            f"## {counted(int(threads), 'thread')}",
            "",
            f"| network | MB | ms per image | ratio to {next(iter(times))} |",
            "|---|---:|---:|---:|",
        ]
        for label, taken in times.items():
            shares = [a / b for a, b in zip(taken, base, strict=True)]
            cells = (label, f"{result['bytes'][label] / 1e6:.1f}", spread(taken, 1), spread(shares, 2))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure the networks and write results/browser_cpu.json and .md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31, help="measurement rounds (default: 31)")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels (default: 224)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="results folder (default: results)",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": host_and_versions(),
        "rounds": arguments.rounds,
        "size": arguments.size,
    }
    with tempfile.TemporaryDirectory() as name:
        labels, files = zip(*write_files(Path(name), arguments.size), strict=True)
        result |= {"bytes": {k: f.stat().st_size for k, f in zip(labels, files, strict=True)}, "times_ms": {}}
        for isolated in (False, True):
            found = time_in_browser(Path(name), list(files), arguments.size, arguments.rounds, isolated)
            result["browser"] = found["browser"]
            times = [[round(time, 2) for time in taken] for taken in found["times"]]
            result["times_ms"][str(found["threads"])] = dict(zip(labels, times, strict=True))
    (arguments.out / "browser_cpu.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "browser_cpu.md").write_text(page(result))


if __name__ == "__main__":
    main()
