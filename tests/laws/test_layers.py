"""The layer law of the design: a file uses only what stands below it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from law_tree import ROOT, UNIKIT, hosted, tracked

# The first pattern that matches decides. `host` in platform is the environment of this very
# process: in-process objects of layer 2 stand on it.
LAYERS = [(re.compile(pattern), layer) for pattern, layer in [
    (r"^(rt|ffi)/", 0), (r"^(cache|component|errors|registry)\.py$", 0),
    (r"^platform/host(/|\.)", 1), (r"^platform/[^/]+\.(h|py)$", 1),
    (r"^alloc/lab/trace\.h$", 2),  # the format, which a component writes too
    (r"^alloc/(lab|preload)/", 4),  # tools over allocators, of any part of the package
    (r"^platform/console/", 2), (r"^(alloc|sched|net)/", 2),
    (r"^platform/", 3),
    (r"^(image|apps|testing)/", 4), (r"^app\.h$", 4),
    (r"", 5),
]]
INTERFACES = {"alloc": {"alloc.h"}, "sched": {"sched.h", "sync.h", "thread.h"},
              "net": {"net.h", "netif.h"}, "platform": {"console.h"}}
COMPILER = {"stddef.h", "stdint.h", "stdbool.h", "stdatomic.h", "stdalign.h", "stdarg.h",
            "limits.h"}


def layer(path: Path) -> int:
    """Return the layer of a file of the package."""
    name = path.relative_to(UNIKIT).as_posix()
    return next(number for pattern, number in LAYERS if pattern.search(name))


def includes(path: Path) -> list[str]:
    """Return what a C file includes, as written."""
    return re.findall(r'^\s*#\s*include\s+([<"][^>"]+[>"])', path.read_text(), re.MULTILINE)


def imports(path: Path) -> list[str]:
    """Return the modules of unikit that a Python file imports, wherever it does."""
    found: list[str] = []
    tree = ast.parse(path.read_text())
    typing_only = {inner for node in ast.walk(tree) if isinstance(node, ast.If)
                   and "TYPE_CHECKING" in ast.unparse(node.test) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name == "unikit" or name.startswith("unikit.")]


def module_file(name: str) -> Path | None:
    """Return the file of a module of unikit, or None for an attribute or an extension."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py")
                 if path.exists()), None)


@pytest.mark.fast
def test_c_includes_only_what_stands_below() -> None:
    """An allocator that includes the network stack, or rt that includes an allocator, is wrong."""
    wrong = []
    for path in tracked(".c", ".h", ".S"):
        for name in includes(path):
            if name.startswith('"') or not name.startswith("<unikit/"):
                continue
            target = ROOT / name[1:-1]
            if not target.exists():
                wrong.append(f"{path.relative_to(ROOT)}: there is no {name}")
            elif layer(target) > layer(path):
                wrong.append(f"{path.relative_to(ROOT)} (layer {layer(path)}) includes {name} "
                             f"(layer {layer(target)})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fast
def test_domains_meet_only_at_their_interfaces() -> None:
    """Components of two domains, and two components of one, never include each other."""
    wrong = []
    for path in tracked(".c", ".h"):
        if layer(path) != 2:
            continue
        domain = path.relative_to(UNIKIT).parts[0]
        for name in includes(path):
            parts = name[1:-1].split("/")
            if parts[0] != "unikit" or len(parts) < 3:
                continue
            target = ROOT / name[1:-1]
            if layer(target) != 2 or parts[1] == domain:
                continue
            if parts[-1] not in INTERFACES.get(parts[1], set()) and not hosted(path):
                wrong.append(f"{path.relative_to(ROOT)} includes {name}, which is no interface")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fast
def test_freestanding_c_knows_no_libc() -> None:
    """Only hosted glue may include anything but compiler headers and unikit's own."""
    wrong = [f"{path.relative_to(ROOT)} includes {name}"
             for path in tracked(".c", ".h")
             if not hosted(path) and layer(path) <= 3 and "linux" not in path.parts
             for name in includes(path)
             if name.startswith("<") and not name.startswith("<unikit/")
             and name[1:-1] not in COMPILER]
    assert not wrong, "\n".join(wrong)


@pytest.mark.fast
def test_python_imports_only_what_stands_below() -> None:
    """The same law for Python; a lazy import inside a function counts too."""
    wrong = []
    for path in tracked(".py"):
        for name in imports(path):
            target = module_file(name)
            if target is None or target == UNIKIT / "__init__.py":
                continue
            if layer(target) > layer(path):
                wrong.append(f"{path.relative_to(ROOT)} (layer {layer(path)}) imports {name} "
                             f"(layer {layer(target)})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fast
def test_only_toolchain_and_platforms_start_processes() -> None:
    """Resolving must stay pure, so `subprocess` is for few.

    `cli/run.py` detaches a machine; programs under test start in `cli/alloc/` and `cli/sched/`, see
    docs/design/allocator-lab.rst and scheduler-lab.rst.
    """
    wrong = []
    for path in tracked(".py"):
        name = path.relative_to(UNIKIT).as_posix()
        if name.startswith(("platform/", "ffi/", "cli/alloc/", "cli/sched/")) \
                or name in ("image/toolchain.py", "cli/run.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            if "subprocess" in modules:
                wrong.append(f"unikit/{name}:{node.lineno} imports subprocess")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fast
def test_only_the_command_line_prints() -> None:
    """A library that prints cannot be embedded; messages go through logging or exceptions."""
    wrong = [f"{path.relative_to(ROOT)}:{node.lineno}"
             for path in tracked(".py") if layer(path) < 5
             for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
             and node.func.id == "print"]
    assert not wrong, "print() in " + ", ".join(wrong)
