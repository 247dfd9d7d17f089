"""Two policies to begin with: copy one, change it, and see what a trace makes of it."""

from __future__ import annotations

import bisect

from unikit.alloc.lab.policy import Policy


class BestFit(Policy):
    """The smallest hole that is large enough; holes that meet become one."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._holes: list[tuple[int, int]] = [(size, 0)]  # (size, address), smallest first
        self._starts, self._ends = {0: size}, {size: 0}

    def alloc(self, size: int, align: int) -> int | None:
        """Cut the block out of the first hole that has room at that alignment."""
        size = self._rounded(size)
        for at in range(bisect.bisect_left(self._holes, (size, 0)), len(self._holes)):
            room, start = self._holes[at]
            address = -(-start // align) * align
            if address + size <= start + room:
                self._remove(start)
                self._add(start, address)
                self._add(address + size, start + room)
                return address
        return None

    def free(self, address: int, size: int, align: int) -> None:
        """Make a hole of the block and of those it touches."""
        start, end = address, address + self._rounded(size)
        if start in self._ends:
            start = self._ends[start]
            self._remove(start)
        if end in self._starts:
            room = self._starts[end]
            self._remove(end)
            end += room
        self._add(start, end)

    @staticmethod
    def _rounded(size: int) -> int:
        return max(16, -(-size // 16) * 16)

    def _add(self, start: int, end: int) -> None:
        if start < end:
            bisect.insort(self._holes, (end - start, start))
            self._starts[start], self._ends[end] = end - start, start

    def _remove(self, start: int) -> None:
        room = self._starts.pop(start)
        del self._ends[start + room]
        del self._holes[bisect.bisect_left(self._holes, (room, start))]


class SizeClasses(Policy):
    """Classes, four to the doubling, cut from spans of 64 KiB; larger blocks by best fit."""

    SPAN = 65536
    LARGEST = 8192

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._spans = BestFit(size)
        self._free: dict[int, list[int]] = {}  # class to addresses
        self._within: dict[int, tuple[int, int]] = {}  # span to (class, blocks in use)
        self._used = 0

    def alloc(self, size: int, align: int) -> int | None:
        """Take a block of its class, from a new span if there is none."""
        room = self.rounded(size, align)
        found = self._spans.alloc(room, align) if room > self.LARGEST else self._small(room)
        if found is not None:
            self._used += room
        return found

    def free(self, address: int, size: int, align: int) -> None:
        """Give the block to its class, and the span back when it was the last one in it."""
        room = self.rounded(size, align)
        self._used -= room
        if room > self.LARGEST:
            self._spans.free(address, room, align)
            return
        span = address // self.SPAN * self.SPAN
        _, blocks = self._within[span]
        self._within[span] = (room, blocks - 1)
        self._free[room].append(address)
        if blocks == 1:
            del self._within[span]
            self._free[room] = [each for each in self._free[room]
                                if not span <= each < span + self.SPAN]
            self._spans.free(span, self.SPAN, self.SPAN)

    def used(self) -> int:
        """Say how much is given out, rounded up to classes."""
        return self._used

    @classmethod
    def rounded(cls, size: int, align: int) -> int:
        """Return the bytes of the class that a block belongs to."""
        size = max(16, size)
        if align > 16:  # powers of two lie at their own multiples, a span being a large one
            size = 1 << (max(size, align) - 1).bit_length()
        if size > cls.LARGEST:
            return size
        step = max(16, 1 << max(0, (size - 1).bit_length() - 3))
        return -(-size // step) * step

    def _small(self, room: int) -> int | None:
        blocks = self._free.setdefault(room, [])
        if not blocks:
            span = self._spans.alloc(self.SPAN, self.SPAN)
            if span is None:
                return None
            self._within[span] = (room, 0)
            blocks += range(span + (self.SPAN // room - 1) * room, span - 1, -room)
        address = blocks.pop()
        span = address // self.SPAN * self.SPAN
        self._within[span] = (room, self._within[span][1] + 1)
        return address
