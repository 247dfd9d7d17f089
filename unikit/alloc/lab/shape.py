"""The shape of a trace: what is alive over time, which sizes, how long blocks live, who asks."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from unikit.alloc.lab.symbols import Site
from unikit.alloc.lab.trace import Trace
from unikit.errors import InvalidArgument
from unikit.ffi import load


class Moment(NamedTuple):
    """One stretch of time; all are of one length.

    :ivar end: ns since the trace's first event.
    :ivar live_bytes: requested and not freed at its end.
    :ivar live_blocks: the same in blocks.
    :ivar top_bytes: the most within.
    :ivar allocations: requests within, reallocations among them.
    :ivar frees: blocks given back within.
    :ivar bytes: requested within.
    """

    end: float
    live_bytes: int
    live_blocks: int
    top_bytes: int
    allocations: int
    frees: int
    bytes: int


class SizeClass(NamedTuple):
    """Requests of similar size: above the class before, up to ``largest``.

    :ivar peak_blocks: alive when the trace needed most memory; so ``peak_bytes``.
    """

    largest: int
    requests: int
    bytes: int
    peak_blocks: int
    peak_bytes: int


class SiteUse(NamedTuple):
    """What one call site asked for.

    :ivar requests: how often.
    :ivar bytes: of all its requests.
    :ivar frees: blocks of it that were given back.
    :ivar life_ns: their mean lifetime; ``None``: none was.
    :ivar peak_bytes: its part of what was alive when the trace needed most memory.
    :ivar live_bytes: never freed.
    :ivar live_blocks: never freed.
    """

    site: Site
    requests: int
    bytes: int
    frees: int
    life_ns: float | None
    peak_bytes: int
    live_bytes: int
    live_blocks: int


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Everything :func:`shape` finds.

    :ivar moments: the course of time.
    :ivar sizes: classes that occur, four to the doubling, ascending.
    :ivar lives: blocks freed by lifetime: entry ``i`` holds those below ``2**i`` ns.
    :ivar life_bytes: the same in bytes.
    :ivar survivors: blocks never freed by size: entry ``i`` holds those below ``2**i`` bytes.
    :ivar heat: blocks freed by size and lifetime, both by doublings as above.
    :ivar sites: those that asked, the one with most bytes at the peak first.
    :ivar grown: reallocations to a larger size; ``shrunk``: to a smaller one.
    :ivar peak_ns: when most memory was needed.
    """

    moments: tuple[Moment, ...]
    sizes: tuple[SizeClass, ...]
    lives: tuple[int, ...]
    life_bytes: tuple[int, ...]
    survivors: tuple[int, ...]
    heat: tuple[tuple[int, ...], ...]
    sites: tuple[SiteUse, ...]
    grown: int
    shrunk: int
    peak_ns: int

    def size_quantile(self, part: float) -> int:
        """Return the size that this part of all requests do not exceed, to a quarter doubling."""
        wanted = part * sum(each.requests for each in self.sizes)
        for each in self.sizes:
            wanted -= each.requests
            if wanted <= 0:
                return each.largest
        return 0

    def life_quantile(self, part: float) -> int | None:
        """Return the lifetime in ns that this part of freed blocks do not exceed, to a doubling."""
        total = sum(self.lives)
        wanted = part * total
        for power, blocks in enumerate(self.lives):
            wanted -= blocks
            if wanted <= 0 and total:
                return 1 << power
        return None


def shape(trace: Trace, moments: int = 240) -> Shape:
    """Look at a trace; O(events), in C.

    :param moments: into how many stretches of time to divide it.
    :raises InvalidArgument: not even one.
    """
    if moments < 1:
        raise InvalidArgument(f"looking at a trace in {moments} moments: at least one")
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    sites = trace.sites
    times = ffi.new("struct kit_shape_moment[]", moments)
    uses = ffi.new("struct kit_shape_site[]", len(sites))
    out = ffi.new("struct kit_shape *")
    with trace._pinned() as columns:
        load.check(lib.kit_shape_look(columns, times, moments, uses, len(sites), out),
                   "looking at a trace")
    span = trace.summary().duration_ns or 1
    used = [_use(site, use) for site, use in zip(sites, uses, strict=True) if use.requests]
    return Shape(
        moments=tuple(Moment(span * (at + 1) / moments, each.live_bytes, each.live_blocks,
                             each.top_bytes, each.allocations, each.frees, each.bytes)
                      for at, each in enumerate(times)),
        sizes=tuple(SizeClass(int(lib.kit_shape_edge(at)), each.requests, each.bytes,
                              each.peak_blocks, each.peak_bytes)
                    for at, each in enumerate(out.sizes) if each.requests),
        lives=tuple(out.lives), life_bytes=tuple(out.life_bytes), survivors=tuple(out.survivors),
        heat=tuple(tuple(row) for row in out.heat),
        sites=tuple(sorted(used, key=lambda each: (-each.peak_bytes, -each.bytes))),
        grown=out.grown, shrunk=out.shrunk, peak_ns=out.peak_ns)


def _use(site: Site, use: Any) -> SiteUse:
    return SiteUse(site, use.requests, use.bytes, use.frees,
                   use.life / use.frees if use.frees else None, use.peak_bytes, use.live_bytes,
                   use.live_blocks)
