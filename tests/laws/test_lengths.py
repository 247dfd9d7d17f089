"""Files and functions stay short enough to be read; what grows too long is pointed at."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from law_tree import ROOT, tracked

pytestmark = pytest.mark.fast
FILE_LINES, FUNCTION_LINES, HARD_LIMIT = 500, 80, 1000


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of each function of a file."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, (node.end_lineno or 0) - node.lineno + 1
    elif path.suffix == ".c":
        for match in re.finditer(r"^[a-zA-Z][^;{}#]*?(\w+)\([^;{}]*\)\n\{\n(.*?)^\}", text,
                                 re.MULTILINE | re.DOTALL):
            yield match[1], match[2].count("\n") + 3


def test_files_are_short() -> None:
    """Above 500 lines is a warning, above 1000 a failure: nobody reads such a file."""
    for path in tracked(".c", ".h", ".py", ".S"):
        lines = path.read_text().count("\n")
        if lines > FILE_LINES:
            warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines", stacklevel=1)
        assert lines <= HARD_LIMIT, f"{path.relative_to(ROOT)} has {lines} lines"


def test_functions_are_short() -> None:
    """A function above 80 lines should be a table, or several functions."""
    for path in tracked(".c", ".py"):
        for name, lines in functions(path):
            if lines > FUNCTION_LINES:
                warnings.warn(f"{path.relative_to(ROOT)}: {name} has {lines} lines", stacklevel=1)


def test_the_counter_sees_c_functions(tmp_path: Path) -> None:
    """The pattern above must recognise our brace style, or the law watches nothing."""
    source = tmp_path / "sample.c"
    source.write_text("static int sum(int a,\n               int b)\n{\n    return a + b;\n}\n")
    assert list(functions(source)) == [("sum", 4)]
