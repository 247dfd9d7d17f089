"""The documentation builds without a warning, leaves nothing out, and shows what exists."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit import get_include, registry
from unikit.alloc import Tlsf, sources
from unikit.cli import parser
from unikit.ffi import cdef
from unikit.image import Image
from unikit.image.export import export

ROOT = Path(__file__).resolve().parents[1]
BOOK = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
BOOK = [path for path in BOOK if path.exists() and "_build" not in path.parts]

needs_sphinx = pytest.mark.skipif(importlib.util.find_spec("sphinx") is None,
                                  reason="sphinx is not installed (extra: docs)")


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """Yield the code blocks of a page in one of these languages."""
    text = path.read_text()
    if path.suffix == ".md":
        for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if match[1] in languages:
                yield match[2]
    else:
        pattern = r"^( *)\.\. code-block:: (\w+)\n\n((?:\1   .*\n|\s*\n)+)"
        for match in re.finditer(pattern, text, re.MULTILINE):
            if match[2] in languages:
                indent = len(match[1]) + 3
                yield "\n".join(line[indent:] for line in match[3].splitlines()) + "\n"


def commands(path: Path) -> Iterator[list[str]]:
    """Yield every unikit command that a page shows, as words after ``unikit``."""
    for block in blocks(path, "console", "sh", "bash", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line.removeprefix("$ ").partition("#")[0]):
                words = shlex.split(part)
                if words and words[0] in ("unikit", "unikit/bootstrap", ".venv/bin/unikit"):
                    yield words


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation, warnings being errors; where it is."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("sphinx is not installed (extra: docs)")
    target = tmp_path_factory.mktemp("html")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d",
         str(target / ".trees"), str(ROOT / "docs"), str(target)],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def inventory(html: Path) -> set[tuple[str, str]]:
    """Return (kind, name) of everything that can be referred to."""
    import zlib
    data = (html / "objects.inv").read_bytes()
    packed = data.split(b"\n", 4)[4]
    rows = zlib.decompress(packed).decode().splitlines()
    return {(row.split()[1], row.split()[0]) for row in rows}


@needs_sphinx
def test_it_builds_without_a_warning(html: Path) -> None:
    """A broken reference or a malformed docstring is a mistake in the book."""
    assert (html / "index.html").exists()


@needs_sphinx
def test_every_public_module_is_in_the_reference(html: Path) -> None:
    """Generated, but only for packages that a page names: a new package must not be forgotten."""
    known = {name for kind, name in inventory(html) if kind == "py:module"}
    missing = []
    for path in sorted((ROOT / "unikit").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if any(part.startswith("_") for part in parts) or parts[:2] == ["unikit", "apps"]:
            continue
        missing += [] if ".".join(parts) in known else [".".join(parts)]
    assert not missing


@needs_sphinx
def test_every_component_is_in_the_reference(html: Path) -> None:
    """The page is made from the registry, domain by domain."""
    text = (html / "reference/components.html").read_text()
    own = [entry.id for entry in registry.entries().values() if entry.id not in registry.broken()]
    assert [name for name in own if f"<h3>{name}<" not in text] == []


@needs_sphinx
@pytest.mark.parametrize("header", ["unikit/app.h", *cdef.INTERFACE_HEADERS])
def test_every_c_function_is_in_the_reference(html: Path, header: str) -> None:
    """Each prototype and dispatcher of a public header has its entry."""
    if "ffi/hooks" in header:
        pytest.skip("not public")
    known = {name for kind, name in inventory(html) if kind == "c:function"}
    text = re.sub(r"/\*.*?\*/", "", (ROOT / header).read_text(), flags=re.DOTALL)
    text = re.sub(r"\{[^{}]*\}", "{}", text)
    found = set(re.findall(r"^(?:KIT_INLINE |_Noreturn )?[a-z][\w\s*]*?\b(\w+)\([^;{}]*\)"
                           r"(?: __attribute__\(\(.*\)\))?\s*[;{]", text, re.MULTILINE))
    assert found <= known


@pytest.mark.fast
@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path) -> None:
    """Every command line that the book shows is one the parser takes."""
    for words in commands(path):
        if words[:2] in (["unikit/bootstrap", "test"], ["unikit/bootstrap", "docs"]):
            assert (ROOT / words[0]).exists()
            continue
        try:
            parser().parse_args([word.replace("...", "x") for word in words[1:]])
        except SystemExit as ended:
            assert ended.code == 0, " ".join(words)


@pytest.mark.fast
@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_examples_name_what_exists(path: Path) -> None:
    """Examples compile, and what they import from unikit is there."""
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unikit"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"


@pytest.mark.fast
def test_readme_links_lead_somewhere() -> None:
    """A relative link of the README is a file of the repository."""
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.fast
def test_readme_figures_are_the_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is written by hand: the table is what ``docs/ext/results.py`` makes of results."""
    monkeypatch.syspath_prepend(ROOT / "docs/ext")
    results = importlib.import_module("results")
    match = results.MARKS.search((ROOT / "README.md").read_text())
    assert match and match[0] == match[1] + results.readme_table() + match[2], \
        "run python3 docs/ext/results.py"


@pytest.mark.fast
def test_readme_opens_with_the_one_command() -> None:
    """The first screen (40 lines) shows how to run it and how to test it."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "unikit/bootstrap run http" in first
    assert "unikit/bootstrap test" in first


def examples() -> Iterator[tuple[str, str]]:
    """Yield (name, code) of the Python examples that run anywhere."""
    pages = ("embed-a-component", "get-huge-pages", "share-an-arena-between-processes",
             "use-an-arena-with-numpy")
    for path in (ROOT / "README.md", *(ROOT / f"docs/howto/{name}.rst" for name in pages)):
        for number, code in enumerate(blocks(path, "python")):
            yield f"{path.name}-{number}", code


@pytest.mark.parametrize(("name", "code"), list(examples()))
def test_python_examples_run(name: str, code: str, tmp_path: Path) -> None:
    """What a reader copies must work as it stands."""
    done = subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code],
                          cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_the_application_of_the_tutorial_builds(tmp_path: Path) -> None:
    """The C that a beginner types compiles without a warning and links."""
    (code,) = (block for block in blocks(ROOT / "docs/tutorial.rst", "c")
               if "init_application" in block)
    (tmp_path / "main.c").write_text(code)
    image = Image("typed", [tmp_path / "main.c"], needs=("net",), flags=("-Wall", "-Werror"))
    assert image.build(tmp_path / "typed.elf").stat().st_size > 0


def test_the_program_of_the_export_page_builds_and_runs(tmp_path: Path) -> None:
    """Exported sources and the program beside them, with a plain C compiler."""
    (code,) = blocks(ROOT / "docs/howto/embed-a-component.rst", "c")
    (tmp_path / "main.c").write_text(code)
    export(registry.find("alloc.tlsf"), tmp_path / "tlsf")
    subprocess.run(["cc", "-Wall", "-Werror", "-Itlsf/include", "main.c",
                    *map(str, (tmp_path / "tlsf/src").glob("*.c")), "-o", "program"],
                   cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_the_program_that_embeds_an_allocator_builds_and_runs(tmp_path: Path) -> None:
    """With what get_include() and sources() say, and nothing else."""
    code = next(blocks(ROOT / "docs/howto/embed-an-allocator-in-c.rst", "c"))
    (tmp_path / "main.c").write_text(code)
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", f"-I{get_include()}", "main.c",
                    *sources(Tlsf), "-o", "program"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True
                          ).stdout.endswith("bytes in 1 block\n")


@pytest.mark.fast
@pytest.mark.parametrize("path", sorted(
    path for path in (ROOT / "unikit").rglob("*.py")
    if ">>> " in path.read_text() and "apps" not in path.parts), ids=lambda path: path.stem)
def test_doctests(path: Path) -> None:
    """Examples in docstrings show what really happens."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
