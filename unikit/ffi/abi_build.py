"""Describe the extension ``unikit._abi``: every interface's types and guarded dispatchers."""

from __future__ import annotations

from functools import cache

import cffi

from unikit.ffi import cdef

_HOOKS = frozenset({"kit_abi_hooks", "kit_abi_take_panic"})


@cache
def ffibuilder() -> tuple[cffi.FFI, str]:
    """Return the builder and the C source of ``unikit._abi``; others ``include`` the builder."""
    texts = [cdef.region(header) for header in cdef.INTERFACE_HEADERS]
    declared, guards = cdef.guarded(texts, unguarded=_HOOKS)
    ffi = cffi.FFI()
    ffi.cdef(declared)
    source = f"{cdef.prelude()}\n{guards}"
    ffi.set_source("unikit._abi", source)
    return ffi, source
