"""A pytest plugin: the Python blocks of Markdown files are tests.

A plain block is run; one with `>>>` prompts is run and its output compared. Blocks of one file share their names.
"""

from __future__ import annotations

from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    path=str(Path(__file__).resolve().parent.parent),
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE)],
    patterns=["*.md"],
).pytest()
