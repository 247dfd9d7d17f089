"""Loading extensions: panics become exceptions, and what is not built says how to build it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unikit import registry
from unikit.component import Component, component, option
from unikit.errors import NotFound, Panic, TimedOut
from unikit.ffi import load

pytestmark = pytest.mark.fast
ROOT = Path(load.__file__).parents[2]


@component
class Alone(Component):
    """Python alone."""

    id = "alloc.alone"
    size: int = option(3, "a number")


@component
class Unbuilt(Component):
    """With C that nobody compiled."""

    id = "alloc.unbuilt"
    sources = ("unbuilt.c",)


def test_the_abi_has_types_and_guarded_calls() -> None:
    """Both halves come from the interface headers."""
    ffi, lib = load.abi()
    assert ffi.sizeof("struct kit_alloc *") == 8
    assert callable(lib.kit_alloc_alloc)
    assert lib.KIT_EPANIC == -18


def test_a_component_without_c_has_nothing_to_load() -> None:
    """Asking for it is a mistake of the caller, with a clear answer."""
    with pytest.raises(NotFound, match=r"alloc\.alone has no C side"):
        load.component(Alone)


@pytest.mark.parametrize("record", [Unbuilt, Unbuilt()])
def test_what_is_not_built_says_how_to_build_it(record: type[Component] | Component) -> None:
    """The remedy is part of the message."""
    with pytest.raises(ImportError, match=r"_unbuilt is not built; build it with: python3 -m "
                                          r"unikit\.ffi\.build_ext --inplace"):
        load.component(record)


def test_a_failure_inside_an_extension_is_not_called_unbuilt(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An extension that exists and misses something else must show its own error."""
    (tmp_path / "half_there.py").write_text("import no_such_thing_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        load.extension("half_there")


def test_an_extension_is_bound_to_the_guards_of_this_process(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the binding a panic in it would abort Python."""
    bound = []
    fake = types.SimpleNamespace(ffi="ffi", lib=types.SimpleNamespace(
        kit_host_bind=bound.append))
    monkeypatch.setattr(load, "_import", lambda name: fake if name == "fake_extension" else
                        sys.modules["unikit._abi"])
    load.abi()
    load.extension.cache_clear()
    assert load.extension("fake_extension") == ("ffi", fake.lib)
    assert bound == [load.abi()[1].kit_abi_hooks()]
    load.extension.cache_clear()


def test_options_travel_as_words() -> None:
    """One uint64_t each; a record without options still gives C a valid pointer."""
    words = load.options(Alone(size=7))
    assert list(words) == [7]
    assert len(load.options(Unbuilt())) == 1


def test_check_passes_results_and_maps_codes() -> None:
    """The same words as errors.check; only KIT_EPANIC looks for a message first."""
    assert load.check(5, "counting") == 5
    with pytest.raises(TimedOut, match="waiting: the deadline passed"):
        load.check(-5, "waiting")
    with pytest.raises(Panic, match="doing: a component found a broken contract"):
        load.check(-18, "doing")


def test_a_component_is_a_pointer_to_its_one_symbol() -> None:
    """From a record or an instance of it; the struct names the same id."""
    record = registry.find("sched.loop")
    pointer = load.component(record)
    ffi, _ = load.abi()
    assert ffi.string(pointer.id).decode() == "sched.loop"
    assert pointer.abi == record.abi
    assert load.component(record()) == pointer


def test_no_panic_no_exception() -> None:
    """`check_panic` after a call that merely returned NULL says nothing."""
    load.check_panic("allocating")


def test_from_a_bare_clone_the_error_says_how_to_build(tmp_path: Path) -> None:
    """``import unikit`` in a clone's root picks the unbuilt tree: the ImportError must help."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "unikit", clone / "unikit",
                    ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = "import unikit; from unikit.ffi import load; load.abi()"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=clone, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the extension unikit._abi is not built; build it with:")
    assert "python3 -m unikit.ffi.build_ext --inplace" in last


GLUE_H = """
#ifndef GLUE_H
#define GLUE_H
/* cdef: begin */
int kit_glue_half(int n);
void *kit_glue_pointer(int n);
void kit_glue_void(int n);
int kit_glue_nested(int n);
/* cdef: end */
#endif
"""
GLUE_C = """
#include <glue/glue.h>
#include <unikit/rt/types.h>
int kit_glue_half(int n) { if (n % 2) kit_panic("odd number"); return n / FACTOR; }
void *kit_glue_pointer(int n) { if (n) kit_panic("no pointer"); return NULL; }
void kit_glue_void(int n) { if (n) kit_panic("nothing \\xff to say"); }
int kit_glue_nested(int n) { return n ? kit_glue_half(n - 1) : 0; }
"""
PYPROJECT = """
[project]
name = "glue"
version = "1"
[tool.unikit.extensions]
"glue._guarded" = {headers = ["glue/glue.h"], sources = ["glue/glue.c"], guard = true, \
defines = {FACTOR = 2}}
"glue._plain" = {headers = ["glue/glue.h"], sources = ["glue/glue.c"], defines = {FACTOR = 4}}
"""


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a third party's project with hosted C, guarded and not; its folder."""
    project = tmp_path_factory.mktemp("glue project")
    (project / "glue").mkdir()
    (project / "glue/__init__.py").write_text("")
    (project / "glue/glue.h").write_text(GLUE_H)
    (project / "glue/glue.c").write_text(GLUE_C)
    (project / "pyproject.toml").write_text(PYPROJECT)
    done = subprocess.run([sys.executable, "-m", "unikit.ffi.build_ext", "--inplace"], cwd=project,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def guarded(glue: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Return the guarded library, loaded as wrappers load theirs."""
    monkeypatch.syspath_prepend(glue)
    load.extension.cache_clear()
    yield load.extension("glue._guarded")
    load.extension.cache_clear()


def test_a_panic_raises_and_the_process_lives(guarded: tuple[Any, Any]) -> None:
    """The message reaches the exception; the next call works."""
    _, lib = guarded
    code = lib.kit_glue_half(3)
    assert code == -18
    with pytest.raises(Panic, match="halving 3: odd number"):
        load.check(code, "halving 3")
    assert load.check(lib.kit_glue_half(8), "halving") == 4


def test_a_panic_behind_a_pointer_or_void(guarded: tuple[Any, Any]) -> None:
    """NULL alone is ambiguous; `check_panic` tells, once, and survives foreign bytes."""
    ffi, lib = guarded
    assert lib.kit_glue_pointer(0) == ffi.NULL
    load.check_panic("fetching")
    assert lib.kit_glue_pointer(1) == ffi.NULL
    with pytest.raises(Panic, match="fetching: no pointer"):
        load.check_panic("fetching")
    load.check_panic("fetching")
    assert lib.kit_glue_void(0) == 0
    with pytest.raises(Panic, match="nothing \ufffd to say"):
        load.check(lib.kit_glue_void(1), "talking")


def test_a_panic_below_another_call_unwinds_to_python(guarded: tuple[Any, Any]) -> None:
    """Inner frames of the component are left behind by the jump."""
    _, lib = guarded
    assert lib.kit_glue_nested(4) == -18
    with pytest.raises(Panic, match="odd number"):
        load.check(-18, "nesting")


def test_threads_have_panics_of_their_own(guarded: tuple[Any, Any]) -> None:
    """A panic in one thread must not be reported in another."""
    _, lib = guarded
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(lib.kit_glue_half(1)))
    thread.start()
    thread.join()
    assert codes == [-18]
    load.check_panic("in the main thread")


def test_unguarded_glue_is_called_directly(glue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defines reach the compiler, and there is no wrapper between."""
    monkeypatch.syspath_prepend(glue)
    _, lib = load.extension("glue._plain")
    assert lib.kit_glue_half(8) == 2
