"""The small C programs and libraries that measuring needs, compiled when first wanted."""

from __future__ import annotations

import functools
from pathlib import Path

from unikit.alloc.lab import build

_HERE = Path(__file__).resolve().parent


@functools.cache
def launcher() -> Path:
    """Return the program that runs others and says what they cost.

    :raises ToolchainError: there is no compiler.
    """
    return build.program("launch", [_HERE / "host_launch.c"])


@functools.cache
def witness() -> Path:
    """Return the library that says whose ``malloc`` a process reaches.

    :raises ToolchainError: there is no compiler.
    """
    return build.library("witness", [_HERE / "host_witness.c"], flags=("-ldl",))


@functools.cache
def glibc() -> Path:
    """Return glibc's allocator as a library to preload.

    :raises ToolchainError: there is no compiler.
    """
    return build.library("libglibc", [_HERE / "host_glibc.c"], flags=("-fno-builtin", "-ldl"))


@functools.cache
def replayer() -> Path:
    """Return the program that replays a trace through ``malloc``.

    :raises ToolchainError: there is no compiler.
    """
    return build.program("replayer", [_HERE / "host_replayer.c"])
