"""For mkdocstrings: examples in docstrings (>>> ...) are code. Markdown alone would take them for quotations."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))>>> .+?(?=\n\n|\Z)", re.DOTALL)


class Doctests(Extension):
    """Fence the examples of each docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_package(self, *, pkg: Object, **_: Any) -> None:
        self.on_object(obj=pkg)  # griffe does not count it among the objects
