"""Load compiled components: the only door from Python to C objects.

``ffi`` and ``lib`` do not leave the wrappers of each domain's ``api.py``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from unikit.component import Component
from unikit.errors import NotFound, Panic

_HINT = ("build it with: python3 -m unikit.ffi.build_ext --inplace (in a checkout), "
         "or install the package")


@cache
def abi() -> tuple[Any, Any]:
    """Return ``(ffi, lib)`` of ``unikit._abi``: types of all interfaces, guarded dispatchers.

    :raises ImportError: the extensions are not built; the message says how.
    """
    module = _import("unikit._abi")
    return module.ffi, module.lib


@cache
def extension(name: str) -> tuple[Any, Any]:
    """Return ``(ffi, lib)`` of an extension, its panics bound to this process's guards.

    :param name: for example ``unikit.platform.kvm._vmm``.
    :raises ImportError: it is not built; the message says how.
    """
    ffi, lib = abi()
    module = _import(name)
    module.lib.kit_host_bind(lib.kit_abi_hooks())
    return module.ffi, module.lib


def component(record: type[Component] | Component) -> Any:
    """Return a pointer to the record's C component (``const struct kit_alloc_component *``).

    :raises NotFound: the component has no C side.
    :raises ImportError: its extension is not built.
    """
    if hasattr(record, "c_component"):  # made at run time
        return record.c_component()
    if not record.sources:
        raise NotFound(f"{record.id} has no C side to load")
    kind = record if isinstance(record, type) else type(record)
    return extension(kind.extension())[1].kit_component()


def options(record: Component) -> Any:
    """Return the record's option values as ``uint64_t[]`` (owned by the result)."""
    ffi, _ = abi()
    values = record.encoded()
    return ffi.new("uint64_t[]", values or [0])


def choices(records: Sequence[Component]) -> tuple[Any, list[Any]]:
    """Return allocators as ``struct kit_alloc_choice[]``, and what must live as long as that.

    :raises NotFound: one has no C side.
    :raises ImportError: an extension is not built.
    """
    ffi, _ = abi()
    values = [options(record) for record in records]
    made = ffi.new("struct kit_alloc_choice[]", [
        {"component": component(record), "options": value}
        for record, value in zip(records, values, strict=True)])
    return made, values


def check_panic(doing: str) -> None:
    """Raise what the last guarded call of this thread panicked with, if it did.

    Call it after a guarded call whose result cannot say so: NULL, ``False`` or 0.

    :raises Panic: with the component's message.
    """
    ffi, lib = abi()
    message = lib.kit_abi_take_panic()
    if message:
        raise Panic(f"{doing}: {ffi.string(message).decode(errors='replace')}")


def check(code: int, doing: str) -> int:
    """Return a result that is no error, or raise; a panic with its message.

    :raises UnikitError: see :func:`unikit.errors.check`.
    """
    if code >= 0:
        return code
    from unikit import errors
    if code == -18:
        check_panic(doing)
    return errors.check(code, doing)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise ImportError(f"the extension {name} is not built; {_HINT}") from error
        raise
