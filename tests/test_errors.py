"""Codes of rt/error.h and exceptions of errors.py, complete both ways."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import pytest

from unikit import errors

pytestmark = pytest.mark.fast

HEADER = Path(errors.__file__).with_name("rt") / "error.h"
CODES = {name: int(value) for name, value in
         re.findall(r"^\s*(KIT_E\w+) = (-\d+)", HEADER.read_text(), re.MULTILINE)}
CLASSES = [value for value in vars(errors).values()
           if isinstance(value, type) and issubclass(value, errors.UnikitError)]


def test_the_header_was_understood() -> None:
    """Nineteen codes, each once: otherwise the tests below compare nothing."""
    assert len(CODES) == len(set(CODES.values())) >= 19
    assert sorted(CODES.values()) == list(range(-len(CODES), 0))


def test_every_code_has_a_class() -> None:
    """A code that C returns and Python cannot name would surface as `Corrupt`."""
    assert set(errors.CODES) == set(CODES.values())


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_the_class_names_its_code(name: str, code: int) -> None:
    """Docstrings state the C name, and no class stands for two codes."""
    kind = errors.CODES[code]
    assert f"``{name}``" in (kind.__doc__ or "")
    assert list(errors.CODES.values()).count(kind) == 1


def test_every_class_that_names_a_code_is_in_the_table() -> None:
    """The other way round: a class for a code that nothing returns is dead."""
    for kind in CLASSES:
        if match := re.search(r"``(KIT_E\w+)``", kind.__doc__ or ""):
            assert errors.CODES[CODES[match[1]]] is kind


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not errors.UnikitError])
def test_each_class_is_also_the_natural_builtin(kind: type[errors.UnikitError]) -> None:
    """``except MemoryError`` must catch ours; bare `Exception` would not be natural."""
    others = [base for base in kind.__bases__ if base is not errors.UnikitError]
    assert errors.UnikitError in kind.__mro__
    assert others or any(base in CLASSES for base in kind.__bases__)
    for base in others:
        assert base is not Exception
        assert getattr(builtins, base.__name__) is base


@pytest.mark.parametrize("code", [0, 1, 2**31 - 1])
def test_check_returns_results(code: int) -> None:
    """Zero and positive numbers are results (lengths, counts), never errors."""
    assert errors.check(code, "counting") == code


@pytest.mark.parametrize(("code", "kind"), errors.CODES.items())
def test_check_raises_the_class_with_what_was_attempted(
        code: int, kind: type[errors.UnikitError]) -> None:
    """The message says what was attempted and what went wrong, without the C name."""
    with pytest.raises(kind) as caught:
        errors.check(code, "opening alloc.tlsf with 12 bytes")
    text = str(caught.value)
    assert text.startswith("opening alloc.tlsf with 12 bytes: ")
    assert "KIT_" not in text and "``" not in text and not text.endswith(".")
    assert type(caught.value) is kind


def test_check_does_not_hide_an_unknown_code() -> None:
    """A code outside the list is a bug somewhere: it must not look like a known error."""
    with pytest.raises(errors.Corrupt, match="reading: unknown error code -1000"):
        errors.check(-1000, "reading")


def test_composition_error_lists_every_problem() -> None:
    """All mistakes at once, readable one by one and as one line."""
    error = errors.CompositionError(["alloc: none", "net: which"])
    assert error.problems == ("alloc: none", "net: which")
    assert str(error) == "alloc: none; net: which"


def test_toolchain_error_carries_the_failed_command() -> None:
    """What ran, its status and its stderr; all empty when the tool is missing."""
    error = errors.ToolchainError("gcc failed", ["gcc", "-c"], 1, "main.c:1: error")
    assert (error.command, error.status, error.stderr) == (("gcc", "-c"), 1, "main.c:1: error")
    missing = errors.ToolchainError("no gcc")
    assert (missing.command, missing.status, missing.stderr) == ((), None, "")


def test_guest_exit_carries_reason_registers_and_console() -> None:
    """Enough to tell what happened without the machine."""
    error = errors.GuestExit("it panicked", reason="panic", code=134, registers={"rip": 7},
                             backtrace=["main+0x4"], console=["last words"])
    assert (error.reason, error.code, error.registers) == ("panic", 134, {"rip": 7})
    assert (error.backtrace, error.console) == (("main+0x4",), ("last words",))
    bare = errors.GuestExit("killed", reason="killed", code=143)
    assert (bare.registers, bare.backtrace, bare.console) == ({}, (), ())
