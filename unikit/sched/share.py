"""What a task shall get of the processor."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

from unikit.component import parse_duration
from unikit.errors import InvalidArgument

_STRICT = 1
PRIORITY_MAX = 63
"""The highest priority."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What a task shall get of the processor; each policy knows some of it and ignores the rest.

    :ivar priority: 0...63; the largest runs first.
    :ivar weight: in proportion to the others'; 0: 1024.
    :ivar slice: reserved in each period, ns or ``"2ms"``; under weights: how long it wants to run
        at a time. 0: the component's option.
    :ivar period: of the reservation; 0: none.
    :ivar deadline: by which the slice is served, from the start of a period; 0: the period's end.
    :ivar strict: runs in its reservation alone, not in what others leave.

    >>> Share(slice="2ms", period="10ms").slice
    2000000
    """

    priority: int = 0
    weight: int = 0
    slice: int | str = 0
    period: int | str = 0
    deadline: int | str = 0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("slice", "period", "deadline"):
            try:
                object.__setattr__(self, name, parse_duration(getattr(self, name)))
            except ValueError as error:
                raise InvalidArgument(f"share, {name}: {error}") from None
        if not 0 <= self.priority <= PRIORITY_MAX:
            raise InvalidArgument(f"share, priority: {self.priority} is not in 0...{PRIORITY_MAX}")
        if not 0 <= self.weight < 1 << 32:
            raise InvalidArgument(f"share, weight: {self.weight} is not in 0...{2**32 - 1}")

    def _fields(self) -> dict[str, Any]:
        """Return it as ``struct kit_task_share``."""
        return {"priority": self.priority, "weight": self.weight, "slice_ns": self.slice,
                "period_ns": self.period, "deadline_ns": self.deadline,
                "flags": _STRICT * self.strict}

    def _bytes(self) -> bytes:
        """Return the bytes of that struct."""
        return struct.pack("=IIQQQI4x", self.priority, self.weight, self.slice, self.period,
                           self.deadline, _STRICT * self.strict)


def share_of(fields: Any) -> Share:
    """Return a ``struct kit_task_share`` as a :class:`Share`."""
    return Share(fields.priority, fields.weight, fields.slice_ns, fields.period_ns,
                 fields.deadline_ns, bool(fields.flags & _STRICT))
