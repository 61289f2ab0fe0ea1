"""Extension of mkdocstrings: render examples in docstrings (>>> ...) as code instead of Markdown quotations."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))>>> .+?(?=\n\n|\Z)", re.DOTALL)
FENCE = "```pycon"


class Doctests(Extension):
    """Griffe extension that fences the examples of each docstring."""

    def on_package(self, *, pkg: Object, **_: Any) -> None:
        self.on_object(obj=pkg)

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring and FENCE not in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(rf"{FENCE}\n\g<0>\n```", obj.docstring.value)
