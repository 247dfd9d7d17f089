"""Numbers as people read them: three digits that count, with a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unikit.alloc.lab.comparison import Spread


def three(value: float) -> str:
    """Return a number with about three digits that count."""
    size = abs(value)
    if value == int(value) and size < 1000:
        return f"{value:.0f}"
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a time in s, ms, us or ns."""
    if value is None:
        return "n/a"
    if value == 0:
        return "0 s"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if abs(value) * scale >= 1:
            return f"{three(value * scale)} {unit}"
    return f"{three(value * 1e9)} ns"


def size(value: float | None) -> str:
    """Return an amount of memory in B, KiB, MiB or GiB."""
    if value is None:
        return "n/a"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{three(value / scale)} {unit}"
    return f"{three(value)} B"


def count(value: float | None) -> str:
    """Return a whole number with thousands apart."""
    return "n/a" if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Return a share."""
    return "n/a" if value is None else f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def ratio(found: Spread | None) -> str:
    """Return a ratio with the interval it lies in."""
    if found is None:
        return "n/a"
    return f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]"


def span(values: Sequence[float]) -> list[float]:
    """Return round values, evenly spaced, that enclose what is given; they need not begin at 0."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.1 or max(abs(high), 1.0) * 0.1
    step = ticks(high - low + 2 * room)[1]
    first = math.floor((low - room) / step) if low > room else 0
    return [step * number for number in range(first, math.ceil((high + room) / step) + 1)]


def ticks(top: float, binary: bool = False, about: int = 5) -> list[float]:
    """Return round values from 0 to at least ``top``, evenly spaced.

    :param binary: round to people who count in KiB.
    """
    if top <= 0 or not math.isfinite(top):
        return [0.0, 1.0]
    unit = 1.0
    if binary:
        while top / unit >= 1024:
            unit *= 1024
    raw = top / unit / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each for each in (1, 2, 2.5, 5, 10) if each * power >= raw * 0.999) * power * unit
    return [step * number for number in range(math.ceil(top / step * 0.9999) + 1)]
