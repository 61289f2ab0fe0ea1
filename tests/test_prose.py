"""Tests of the words in pages, comments, docstrings and messages: retired terms do not come back."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.page_commands import ROOT

# The left column paraphrases a term of the field, the right column is the term.
RETIRED = {
    "anew": "again; from scratch; every epoch",
    "go on with": "resume, continue",
    "goes on with": "resumes, continues",
    "going on after": "resuming after",
    "struck": "killed",
    "left alone": "uninterrupted",
    "taken for what": "confusion matrix",
    "take for what": "confusion matrix",
    "takes for what": "confusion matrix",
    "most wrong": "misclassified with the highest loss",
    "guesses per image": "number of top predictions",
    "bad numbers": "non-finite values (NaN or Inf)",
    "went bad": "became non-finite",
    "go bad": "become non-finite",
    "passed over": "skipped",
    "by heart": "overfitting, memorizing",
    "in turns": "alternately, round-robin",
    "contestant": "benchmark entry, network",
    "contestants": "benchmark entries, networks",
    "was to be reached": "target",
    "was aimed at": "target",
    "what came of it": "result",
    "stranger": "untrusted source",
    "strangers": "untrusted sources",
    "mend": "fix",
    "mended": "fixed",
    "for ever": "indefinitely",
    "import floors": "import layers",
    "schedule of today": "modern schedule",
    "classes apart": "number of classes",
    "filled up to": "padded to",
    "told what takes long": "callback for progress messages",
    "asks nothing of": "sends no requests to",
    "numbers in the network": "precision",
    "needs no network": "works offline",
}
PATTERN = re.compile(
    r"\b(?:" + "|".join(r"\s+".join(words.split()) for words in RETIRED) + r")\b", re.IGNORECASE
)
SUFFIXES = (".py", ".md", ".toml", ".html", ".js", ".mjs", ".css", ".yml")
PLACES = ("docs", "examples", "igcv", "recipes", "studies", "tests")
FILES = [
    *(path for path in sorted(ROOT.iterdir()) if path.suffix in SUFFIXES or path.name == "Makefile"),
    *(
        path
        for place in PLACES
        for path in sorted((ROOT / place).rglob("*"))
        if path.suffix in SUFFIXES and path.name != Path(__file__).name
    ),
]


def prose(file: Path) -> str:
    """Return the text of a file that people read: of a Python file its comments and strings."""
    text = file.read_text()
    if file.suffix != ".py":
        return text
    kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    words = "\n".join(token.string for token in tokens if token.type in kinds)
    return re.sub(r"\n\s*#|\{[^{}]*\}", "\n", words)  # a term may continue on the next line of a comment


def retired(text: str) -> Iterator[str]:
    """Yield a line for every retired term in a text."""
    for found in PATTERN.finditer(text):
        term = " ".join(found[0].lower().split())
        around = " ".join(text[max(0, found.start() - 40) : found.end() + 40].split())
        yield f"'{term}' (write: {RETIRED[term]}) in: {around}"


def test_no_retired_term() -> None:
    found = [f"{file.relative_to(ROOT)}: {line}" for file in FILES for line in retired(prose(file))]
    assert not found, "\n".join(found)


def test_a_retired_term_is_found(tmp_path: Path) -> None:
    """Across lines, in comments, docstrings and messages, in any case; not in the names of code."""
    file = tmp_path / "code.py"
    file.write_text('"""Go on\n    with it."""\nstruck = 1  # Anew\nprint(f"{struck}, amended")\n')
    assert [line.split("'")[1] for line in retired(prose(file))] == ["go on with", "anew"]
    assert list(retired("Files of strangers"))
