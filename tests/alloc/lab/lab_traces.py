"""Traces that the laboratory's tests share: made by a seeded program, not recorded."""

from __future__ import annotations

import random

from unikit.alloc import lab
from unikit.alloc.lab import Event, Op


def churn(events: int = 20_000, *, live: int = 500, threads: int = 3, seed: int = 1,
          aligned: bool = True) -> lab.Trace:
    """Return a trace with all operations, blocks of many sizes, freed by any thread."""
    chance = random.Random(seed)
    made, alive, born = [], [], 0
    for number in range(threads):
        made.append(Event(Op.START, 0, number, size=1000 + number))
    for number in range(events):
        time, thread = number * 100, chance.randrange(threads)
        size = chance.choice((8, 24, 100, 500, chance.randrange(1, 20_000)))
        if len(alive) >= live or (alive and chance.random() < 0.45):
            at = chance.randrange(len(alive))
            alive[at], alive[-1] = alive[-1], alive[at]
            op = chance.choice((Op.FREE, Op.FREE, Op.SIZED_FREE))
            made.append(Event(op, time, thread, alive.pop()))
        elif alive and chance.random() < 0.1:
            made.append(Event(Op.REALLOC, time, thread, chance.choice(alive), size, 0,
                              chance.randrange(4)))
        else:
            align = chance.choice((0, 0, 0, 64, 256)) if aligned else 0
            op = Op.ZEROED if not align and chance.random() < 0.2 else Op.ALLOC
            made.append(Event(op, time, thread, born, size, align, chance.randrange(4)))
            alive.append(born)
            born += 1
    return lab.Trace.of(made, ["main", "parse", "cache"], program="churn")
