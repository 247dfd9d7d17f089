"""``alloc.guard``: a layer that finds out misuse of the allocator it stands on."""

from __future__ import annotations

from unikit.alloc.api import Layer
from unikit.component import component, option


@component
class Guard(Layer):
    """Finds out misuse: overflow, underflow, use after free, double and foreign free, leaks.

    Canaries, poison, a quarantine, pages of their own for blocks, and the call sites of what was
    not freed; each is an option, and what is switched off costs nothing but 96 bytes per block. A
    panic names the mistake, the block, its size, the offset of the damage, and where the block was
    allocated and freed. Can refuse the n-th request, for tests of what happens then.
    """

    id = "alloc.guard"
    features = frozenset({"layer", "reuses", "owns", "walk", "add_region", "unsized", "pages",
                          "sites", "fails", "leaks"})
    alone = frozenset({"owns", "unsized", "sites", "fails", "leaks"})
    sources = ("guard.c", "block.c", "quarantine.c", "report.c")

    canary: int | str = option(16, "bytes before and behind each block that show when they are "
                               "written; 0: none", kind="size", maximum=4096, unit="bytes")
    poison: bool = option(True, "fill what was never written and what was freed, and see to it "
                          "that freed blocks stay so", kind="bool")
    quarantine: int | str = option("1M", "bytes of freed blocks that wait before they are used "
                                   "again; the newest always waits; 0: none", kind="size",
                                   maximum=1 << 40, unit="bytes")
    quarantine_blocks: int = option(4096, "freed blocks that wait, at most; 0: none",
                                    maximum=1 << 32, unit="blocks")
    patrol: int = option(4, "waiting blocks that are looked at with each call", maximum=1 << 20,
                         unit="blocks")
    pages: int | str = option(0, "blocks of this size and more have pages of their own and an "
                              "inaccessible one behind them, where pages can be protected; 0: none",
                              kind="size", unit="bytes")
    fail_at: int = option(0, "which request is refused, the first being 1; 0: none", when="boot")
