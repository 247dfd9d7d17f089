"""Public means documented: every public module, class, function and method says what it does."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from law_tree import ROOT, UNIKIT, tracked

pytestmark = pytest.mark.fast


def public_modules() -> list[Path]:
    """Return the files whose names promise something to users."""
    return [path for path in tracked(".py")
            if not any(part.startswith("_") and part != "__init__.py"
                       for part in path.relative_to(UNIKIT).parts)]


def undocumented(path: Path) -> Iterator[str]:
    """Yield the public names of a file that have no docstring, inherited ones counted as good."""
    tree = ast.parse(path.read_text())
    if tree.body and not ast.get_docstring(tree):
        yield "the module itself"
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) \
                or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) \
                        and not inner.name.startswith("_") and not ast.get_docstring(inner) \
                        and not inherited(path, node.name, inner.name):
                    yield f"{node.name}.{inner.name}"


def inherited(path: Path, cls: str, method: str) -> bool:
    """Whether a base class documents this method (or it is the setter of a documented property)."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    try:
        value = getattr(getattr(importlib.import_module(name), cls), method)
    except (ImportError, AttributeError):
        return False
    return bool(inspect.getdoc(value))


@pytest.mark.parametrize("path", public_modules(),
                         ids=lambda path: path.relative_to(UNIKIT).as_posix())
def test_public_names_are_documented(path: Path) -> None:
    """The reference is generated from docstrings: one that is missing is a hole in the book."""
    assert not list(undocumented(path))


@pytest.mark.parametrize("path", public_modules(),
                         ids=lambda path: path.relative_to(UNIKIT).as_posix())
def test_all_names_what_exists(path: Path) -> None:
    """``__all__`` must not promise what is not there."""
    if not any(isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node)
               for node in ast.parse(path.read_text()).body):
        return
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    assert not [each for each in module.__all__ if not hasattr(module, each)]
