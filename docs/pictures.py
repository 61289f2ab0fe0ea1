"""Generate the README's images: output of `make demo`, the report of its run, and its browser page.

Command: python docs/pictures.py    (requires Playwright and Chromium)
"""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI

from igcv.classifier import load
from igcv.web.server import make_server
from igcv.web.writer import write_page

ROOT = Path(__file__).parents[1]
COLUMNS = 108
PAUSE_S = 0.35  # seconds between two lines
STYLE = """
@keyframes appear { from { opacity: 0 } }
@media (prefers-reduced-motion: no-preference) { .line { animation: appear 0.01s both } }
"""
# Hide some curves and misclassified images of the report.
SHORTER = ".panels figure:nth-child(n+3), .mistakes > li:nth-child(n+9), details, nav { display: none }"


def recording(command: list[str]) -> str:
    """Run a command and return its output as an SVG whose lines appear one after another."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(f"[bold green]$[/] [bold]{' '.join(command)}[/]", highlight=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("rm ", ".venv/"))]
    console.print("\n".join(lines), highlight=False, markup=False)
    return animated(console.export_svg(title="igcv", theme=MONOKAI))


def animated(svg: str) -> str:
    """Return the SVG with an animation delay for each line."""

    def late(found: re.Match[str]) -> str:
        return f'{found[0][:-1]} style="animation-delay: {PAUSE_S * int(found[1]):.2f}s">'

    timed = re.sub(r'<text class="[^"]*"[^>]*-line-(\d+)\)">', late, svg)
    return timed.replace('<text class="', '<text class="line ').replace("</style>", f"{STYLE}</style>", 1)


def screenshot(address: str, size: tuple[int, int], picture: Path, prepare: Callable[[Page], object]) -> None:
    """Save a screenshot of a page after the actions of `prepare`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        tab.goto(address)
        prepare(tab)
        tab.wait_for_timeout(500)  # until the figures are drawn
        tab.screenshot(path=picture)


def classify_an_example(tab: Page) -> None:
    """Classify the third example five times, because the first run is slower."""
    tab.get_by_text("Ready. Choose a picture.").wait_for()
    for _ in range(5):
        tab.locator("#thumbnails button").nth(2).click()
        tab.locator("#bars li").first.wait_for()
    tab.evaluate("scrollTo(0, 0)")


def main() -> None:
    """Run the demo, write its browser page and generate all images."""
    docs, run, web = ROOT / "docs", ROOT / "runs" / "digits", ROOT / "runs" / "web"
    (docs / "demo.svg").write_text(recording(["make", "demo"]))
    report = (run / "report.html").as_uri()
    screenshot(report, (1180, 1500), docs / "report.png", lambda tab: tab.add_style_tag(content=SHORTER))
    shutil.rmtree(web, ignore_errors=True)
    write_page(load(run), web)
    with make_server(web, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        screenshot(address, (960, 680), docs / "web.png", classify_an_example)
        server.shutdown()


if __name__ == "__main__":
    main()
