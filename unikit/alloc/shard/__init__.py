"""The record of ``alloc.shard``."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component, option


@component
class Shard(Allocator):
    """The general-purpose allocator: quick on average, and every step bounded.

    Size classes in slabs with descriptors outside them, a face for each thread or CPU, blocks
    freed elsewhere come home in batches; behind them runs of pages in bins, good fit, joined at
    once. Memory is given back by ticks, never by a clock.

    ``stats()`` adds up what is in use, in time that grows with the number of slabs and large
    blocks; ``peak`` is the highest sum that it has seen, so it must be asked to be right.
    """

    id = "alloc.shard"
    features = frozenset({"reuses", "bounded", "owns", "walk", "add_region", "unsized", "threads",
                          "pages", "resize", "zeroed"})
    sources = ("shard.c", "slab.c", "face.c", "large.c", "back.c", "pages.c", "hard.c",
               "check.c", "bounds.c")
    reference = ("Leijen, Zorn, de Moura, Mimalloc: free list sharding in action, APLAS 2019; "
                 "Lietar et al., snmalloc: a message passing allocator, ISMM 2019; Masmano, "
                 "Ripoll, Crespo, Real, TLSF, ECRTS 2004")

    pool: int | str = option(0, "bytes to manage; 0: all there is", kind="size", unit="bytes")
    hardened: bool | str = option(
        False, "checks, links and canary at little cost; blocks with pages of their own wait for "
        "8 others, and writes to their first 64 bytes are found", kind="bool")
    full: bool | str = option(
        False, "all that follows, with 8 blocks in quarantine", kind="bool")
    checks: bool | str = option(
        False, "what is freed must be the start of a block in use", kind="bool")
    links: bool | str = option(
        False, "encoded links of free blocks, which must lead into their slab", kind="bool")
    canary: bool | str = option(
        False, "writes behind the bytes that were asked for, and blocks freed twice, are found "
        "when the block is freed; 8 bytes per block", kind="bool")
    poison: bool | str = option(
        False, "freed blocks are overwritten, up to 1 MiB of them", kind="bool")
    shuffle: bool | str = option(
        False, "neighbours are not given out in order", kind="bool")
    quarantine: int = option(
        0, "so many freed blocks of each thread wait before they are used again; with poison, "
        "writes to them are found", maximum=64)

    def sole_defines(self) -> tuple[str, ...]:
        """A heap that is hardened and no more need not ask at each call whether it is."""
        more = self.full or self.poison or self.quarantine or self.pool  # which may be small
        return ("KIT_SHARD_HARDENED=1",) if self.hardened and not more else ()
