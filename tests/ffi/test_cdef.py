"""From headers to cdef text and guards: what Python sees is what the header says."""

from __future__ import annotations

from pathlib import Path

import cffi
import pytest

from unikit.ffi import abi_build, cdef

pytestmark = pytest.mark.fast

HEADER = """
#ifndef X
/* cdef: begin */
struct thing {
    int (*call)(struct thing *t, int n); /* a comment; with a semicolon */
};
/* cdef: end */
#define HIDDEN 1
/* cdef: begin */
KIT_INLINE int kit_thing_call(struct thing *t, int n)
{
    if (n) {
        return t->call(t, n);
    }
    return 0;
}

KIT_INLINE void kit_thing_stop(struct thing *t)
{
    (void)t;
}

const char *kit_thing_name(const struct thing *t, int (*visit)(void *argument, int),
                           const char words[4]);
int kit_thing_count(void);
/* cdef: end */
#endif
"""


@pytest.fixture
def header(tmp_path: Path) -> str:
    """Return the text that Python sees of the header above."""
    (tmp_path / "thing.h").write_text(HEADER)
    return cdef.region("thing.h", tmp_path)


def test_region_keeps_what_is_marked_and_nothing_else(header: str) -> None:
    """Conditionals and macros outside the marks never reach the C parser of cffi."""
    assert "HIDDEN" not in header and "#" not in header and "/*" not in header
    assert "struct thing {" in header and "kit_thing_name" in header


def test_a_dispatcher_becomes_a_prototype(header: str) -> None:
    """Its body, braces inside included, is gone."""
    assert "int kit_thing_call(struct thing *t, int n);" in header
    assert "return" not in header and "KIT_INLINE" not in header


def test_a_header_without_marks_is_refused(tmp_path: Path) -> None:
    """Nothing marked means a forgotten mark, not an empty interface."""
    (tmp_path / "bare.h").write_text("int x;\n")
    with pytest.raises(ValueError, match=r"bare\.h: no region"):
        cdef.region("bare.h", tmp_path)


def test_functions_are_found_with_their_arguments(header: str) -> None:
    """Function pointers and arrays among the parameters keep their names."""
    found = {function.name: function for function in cdef.functions(header)}
    assert list(found) == ["kit_thing_call", "kit_thing_stop", "kit_thing_name", "kit_thing_count"]
    assert found["kit_thing_call"].arguments() == ["t", "n"]
    assert found["kit_thing_name"].arguments() == ["t", "visit", "words"]
    assert found["kit_thing_name"].result == "const char *"
    assert found["kit_thing_count"].arguments() == []


def test_function_pointers_in_structures_are_no_functions(header: str) -> None:
    """A member ``call`` must not be wrapped: only prototypes at file scope are."""
    assert all("(*" not in function.name for function in cdef.functions(header))
    assert "int (*call)(struct thing *t, int n);" in cdef.declarations(header)
    assert "kit_thing_call" not in cdef.declarations(header)


def test_void_becomes_a_code(header: str) -> None:
    """A panic in a void function must be visible: Python sees ``int``, 0 or KIT_EPANIC."""
    stop = next(each for each in cdef.functions(header) if each.name == "kit_thing_stop")
    assert stop.prototype() == "int kit_thing_stop(struct thing *t);"
    assert "return KIT_EPANIC" in stop.guard() and "return 0;" in stop.guard()


def test_what_a_panic_returns_depends_on_the_result_type(header: str) -> None:
    """``int`` says KIT_EPANIC; a pointer or a size says 0, which `check_panic` explains."""
    found = {function.name: function for function in cdef.functions(header)}
    assert "return KIT_EPANIC" in found["kit_thing_call"].guard()
    assert "return 0);" in found["kit_thing_name"].guard()
    assert "#define kit_thing_call(...)" in found["kit_thing_call"].guard()


def test_unguarded_functions_stay_plain(header: str) -> None:
    """The hooks themselves cannot be called through the guards they implement."""
    declared, guards = cdef.guarded([header], unguarded=frozenset({"kit_thing_stop"}))
    assert "void kit_thing_stop(struct thing *t);" in declared
    assert "kit_guarded_kit_thing_stop" not in guards
    assert "kit_guarded_kit_thing_call" in guards


def test_cffi_accepts_the_result(header: str) -> None:
    """The reader of the text is cffi's parser: it must take it as it is."""
    declared, _ = cdef.guarded([header])
    ffi = cffi.FFI()
    ffi.cdef(declared)
    assert ffi.typeof("struct thing").fields[0][0] == "call"


def test_prelude_names_every_interface_header() -> None:
    """Generated C includes the guards, all interfaces, and then the caller's headers."""
    text = cdef.prelude(["mine/glue.h"])
    assert text.startswith("#include <unikit/ffi/hooks/guard.h>")
    assert text.endswith("#include <mine/glue.h>")
    assert all(f"#include <{name}>" in text for name in cdef.INTERFACE_HEADERS)


@pytest.mark.parametrize("name", cdef.INTERFACE_HEADERS)
def test_every_interface_header_is_read_whole(name: str) -> None:
    """No dispatcher of a real header is lost: the count is taken from the header itself."""
    text = (cdef.ROOT / name).read_text()
    seen = {function.name for function in cdef.functions(cdef.region(name))}
    for line in text.splitlines():
        if line.startswith("KIT_INLINE ") and "(" in line:
            inline = line.split("(")[0].split()[-1].lstrip("*")
            marked = any(inline in part for part in
                         [chunk.split("/* cdef: end */")[0]
                          for chunk in text.split("/* cdef: begin */")[1:]])
            assert (inline in seen) == marked, f"{name}: {inline}"


def test_the_abi_is_built_from_all_headers() -> None:
    """``unikit._abi`` knows the objects of every domain, and each dispatcher is guarded."""
    ffi, source = abi_build.ffibuilder()
    for name in ("kit_alloc", "kit_sched", "kit_net"):
        assert ffi.typeof(f"struct {name} *").item.cname == f"struct {name}"
    assert "kit_guarded_kit_alloc_alloc" in source
    assert "kit_guarded_kit_abi_hooks" not in source
    assert abi_build.ffibuilder() is abi_build.ffibuilder()
