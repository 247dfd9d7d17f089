"""Who asked for a block: call sites in Python, as tokens that C keeps for them."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from unikit.errors import Panic

_SITE = re.compile(r"\b(allocated by|freed by|now by) 0x([0-9a-f]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Leak:
    """A block that is in use, and who asked for it.

    :ivar address: where it starts.
    :ivar size: bytes asked for.
    :ivar align: alignment asked for, 16 at least.
    :ivar site: ``file.py:12`` for a block asked for by Python, else an address.
    :ivar serial: how many requests had been answered before.
    """

    address: int
    size: int
    align: int
    site: str
    serial: int


class Sites:
    """Numbers for places in Python code: C keeps one for each block, as it would an address."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._names: list[str] = []

    def here(self) -> int:
        """Return the number of the innermost place outside ``unikit.alloc``."""
        frame: Any = sys._getframe(1)
        while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(
                "unikit.alloc."):
            frame = frame.f_back
        key = (frame.f_code.co_filename, frame.f_lineno)
        if key not in self._numbers:
            self._names.append(f"{Path(key[0]).name}:{key[1]}")
            self._numbers[key] = len(self._names)
        return self._numbers[key]

    def name(self, site: int) -> str:
        """Return the place of a number; an address stays one."""
        return self._names[site - 1] if 0 < site <= len(self._names) else f"{site:#x}"

    def named(self, panic: Panic) -> Panic:
        """Return a panic whose message names places instead of their numbers."""
        return Panic(_SITE.sub(lambda match: f"{match[1]} {self.name(int(match[2], 16))}",
                               str(panic)))
