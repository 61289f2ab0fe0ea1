"""Make the pictures of the README anew: what `make demo` prints, and the report of its run.

Command: python docs/pictures.py    (needs Playwright and Chromium, for the report)
"""

import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI

ROOT = Path(__file__).parents[1]
COLUMNS = 108
PAUSE_S = 0.35  # between two lines
STYLE = """
@keyframes appear { from { opacity: 0 } }
@media (prefers-reduced-motion: no-preference) { .line { animation: appear 0.01s both } }
"""
VIEW = {"width": 1180, "height": 1500}
SHORTER = ".panels figure:nth-child(n+3), .mistakes > li:nth-child(n+9), details, nav { display: none }"


def recording(command: list[str]) -> str:
    """What a command prints, as a picture whose lines appear one after the other."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(f"[bold green]$[/] [bold]{' '.join(command)}[/]", highlight=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("rm ", ".venv/"))]
    console.print("\n".join(lines), highlight=False, markup=False)
    return animated(console.export_svg(title="igcv", theme=MONOKAI))


def animated(svg: str) -> str:
    """The picture with a moment of its own for each line."""

    def late(found: re.Match[str]) -> str:
        return f'{found[0][:-1]} style="animation-delay: {PAUSE_S * int(found[1]):.2f}s">'

    timed = re.sub(r'<text class="[^"]*"[^>]*-line-(\d+)\)">', late, svg)
    return timed.replace('<text class="', '<text class="line ').replace("</style>", f"{STYLE}</style>", 1)


def screenshot(page: Path, picture: Path) -> None:
    """The top of a report, with fewer curves and mistakes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=VIEW)
        tab.goto(page.as_uri())
        tab.add_style_tag(content=SHORTER)
        tab.wait_for_timeout(500)  # for the figures to be drawn
        tab.screenshot(path=picture)


if __name__ == "__main__":
    (ROOT / "docs" / "demo.svg").write_text(recording(["make", "demo"]))
    screenshot(ROOT / "runs" / "digits" / "report.html", ROOT / "docs" / "report.png")
