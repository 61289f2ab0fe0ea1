"""Hooks of mkdocs: add pages from outside docs/ and tables generated from the code.

The pages contain links that work in the repository. The hooks convert them to links of the site.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from igcv.analysis import model_cost
from igcv.commands.app import app
from igcv.models import default_input_size, list_models
from igcv.training import Recipe

ROOT = Path(__file__).parents[1]
ELSEWHERE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "studies/benchmarks/results/*.[mp]*",
    "studies/results/*.[mp]*",
)  # pages and images
TARGET = re.compile(r"(?<=\]\()[^)#:\s]+")  # target of a link, without its anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/ under their paths in the repository."""
    for path in (path for pattern in ELSEWHERE for path in sorted(ROOT.glob(pattern))):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated tables and convert links of the repository to links of the site."""
    assert page.file.abs_src_path is not None
    folder, place = Path(page.file.abs_src_path).parent, posixpath.dirname(page.file.src_uri)

    def on_site(target: re.Match[str]) -> str:
        path = (folder / target[0]).resolve()
        return posixpath.relpath(site_path(path), place) if path.exists() else target[0]

    for name, write in TABLES.items():
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(write()))
    return TARGET.sub(on_site, markdown)


def site_path(path: Path) -> str:
    """Return the path on the site of a file in the repository."""
    if path.suffix == ".toml":
        return f"reference/recipes.md#{path.stem}"
    if path.parent == ROOT / "examples":
        return f"examples.md#{path.stem}"
    return path.relative_to(ROOT).as_posix().removeprefix("docs/")


def commands() -> Iterator[str]:
    """Yield the reference of all commands."""
    for name, command in typer.main.get_command(app).commands.items():
        if hasattr(command, "commands"):
            for part, inner in command.commands.items():
                yield from describe(f"{name} {part}", inner)
        else:
            yield from describe(name, command)


def describe(name: str, command: Any) -> Iterator[str]:
    """Yield the reference of one command: purpose, usage, arguments and options."""
    purpose, _, example = command.help.partition("Example: ")
    arguments = [p.metavar or p.name.upper() for p in command.params if not is_option(p)]
    yield from (f"## igcv {name}", "", purpose.strip(), "", "```text", f"igcv {name} {' '.join(arguments)}")
    yield from ((f"igcv{example.removeprefix('igcv')}", "```") if example else ("```",))
    yield from ("", "| argument or option | default | meaning |", "|---|---|---|")
    for p in command.params:
        given = f"`{p.opts[0]}`" if is_option(p) else f"`{p.metavar or p.name.upper()}`"
        default = "" if p.default in (None, False) or p.required else f"`{p.default}`"
        yield f"| {given} | {default} | {p.help} |"
    yield ""


def is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def settings() -> Iterator[str]:
    """Yield the table of all recipe keys."""
    yield from ("| key | default | meaning |", "|---|---|---|")
    for f in fields(Recipe):
        default = "" if f.default in (None, "", ()) else f"`{str(f.default).lower()}`"
        choices = ", ".join(f"`{choice}`" for choice in f.metadata["choices"])
        yield f"| `{f.name}` | {default} | {f.metadata['help']}{f' ({choices})' if choices else ''} |"


def recipes() -> Iterator[str]:
    """Yield all recipes that are installed with igcv."""
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        yield from (f"## {path.name} {{#{path.stem}}}", "", "```toml", path.read_text().strip(), "```", "")


def examples() -> Iterator[str]:
    """Yield the scripts in examples/."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        yield from (f"## {path.name} {{#{path.stem}}}", "", "```python", path.read_text().strip(), "```", "")


def networks() -> Iterator[str]:
    """Yield the table of listed networks with their costs."""
    yield from ("| network | pixels | parameters | multiply-adds |", "|---|---:|---:|---:|")
    for name in list_models():
        size = default_input_size(name)
        cost = model_cost(name, 1000, size)
        yield f"| `{name}` | {size} | {cost.parameters:,} | {cost.multiply_adds / 1e6:,.1f} M |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "settings": settings,
    "recipes": recipes,
    "examples": examples,
    "networks": networks,
}
