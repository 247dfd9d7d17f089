"""The programs that measure, compiled when first wanted."""

from __future__ import annotations

import functools
from pathlib import Path

from unikit.alloc.lab import build
from unikit.errors import ToolchainError
from unikit.image.toolchain import ROOT
from unikit.sched.api import Scheduler

_HERE = Path(__file__).resolve().parent
_KERNELS = ("kernels.c", "kernels_wake.c", "kernels_share.c")
_FLAGS = ("-flto", "-fno-PIC", "-fno-pie", "-no-pie", "-fomit-frame-pointer",
          "-fcf-protection=none", "-fno-stack-protector")  # as images are compiled
_BOOST = "-l:libboost_context.a"


@functools.cache
def scheduler(record: Scheduler) -> Path:
    """Return the program that runs the kernels on one scheduler, as an image carries it.

    :raises ToolchainError: there is no compiler.
    """
    sources = [_HERE / "host_bench.c", *(ROOT / "unikit/sched/lab" / name for name in _KERNELS),
               ROOT / "unikit/sched/sync.c", ROOT / "unikit/testing/virtual.c",
               *record.source_files()]
    return build.program(f"bench-{record.stem()}", sources, (
        f"KIT_SOLE_SCHED={record.symbol()}", "KIT_WITH_CPUS=0", "KIT_WITH_PREEMPTION=0"), _FLAGS)


@functools.cache
def threads() -> Path:
    """Return the program that does the same with POSIX threads.

    :raises ToolchainError: there is no compiler.
    """
    return build.program("reference", [_HERE / "host_reference.c", _HERE / "host_messages.c"])


@functools.cache
def switches() -> tuple[Path, bool]:
    """Return the program of bare switches, and whether Boost.Context is in it.

    :raises ToolchainError: there is no compiler.
    """
    sources = [_HERE / "host_switch.c", ROOT / "unikit/rt/x86_64/switch.S"]
    try:
        return build.program("switch-boost", sources, ("WITH_BOOST",), (*_FLAGS, _BOOST)), True
    except ToolchainError as error:
        if "boost_context" not in str(error):
            raise
    return build.program("switch", sources, (), _FLAGS), False
