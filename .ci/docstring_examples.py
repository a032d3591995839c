"""A griffe extension for the reference pages: a docstring's section `Example:` is code, as `Examples:` is to griffe.

Left alone, griffe takes the singular for a box of prose, and Markdown then finds links in lists of strings.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class DocstringExamples(griffe.Extension):
    """Renames the section before the docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for every module, class, function and attribute that it has loaded."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
