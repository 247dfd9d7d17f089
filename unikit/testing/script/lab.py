"""A stack in virtual time at one end of a wire whose other end is in our hands."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from unikit.net.api import Stack
from unikit.testing.script import frames
from unikit.testing.script.frames import BadFrame
from unikit.testing.script.model import Packet
from unikit.testing.virtual import VirtualEnvironment

_TURNS = 20_000


class Unsettled(Exception):
    """The stack went on for ever at one moment of time."""


@dataclasses.dataclass(slots=True)
class Seen:
    """A packet of the stack, numbers as on the wire, and when it came."""

    at_ns: int
    packet: Packet


class Lab:
    """The stack, its clock and the raw end of its wire. Leaving its ``with`` block closes it.

    :ivar queue: packets of the stack that nobody looked at yet.
    :ivar broken: what was wrong with a frame that no receiver would take.
    """

    def __init__(self, record: Stack, local: str, prefix: int, gateway: str, *, mtu: int,
                 seed: int) -> None:
        from unikit.alloc import Tlsf
        from unikit.net.netif.pipe import Pipe
        self.queue: collections.deque[Seen] = collections.deque()
        self.broken: list[str] = []
        self.waiting: Any = None  # called while the stack works; whether it did anything
        self.env = VirtualEnvironment(seed=seed)
        self.env.advance(1000)  # a machine that has been up for a while
        self.raw, self.end = Pipe(slots=512, mtu=mtu).open()
        self.heap = Tlsf().open("16M")
        self.stack = record.open(self.end, heap=self.heap, env=self.env)
        self.stack.configure(f"{local}/{prefix}", gateway)
        self.settle()
        if ":" in local:  # duplicate address detection
            self.advance_to(self.env.now_ns() + 5 * 10**9)
        self.start_ns = self.env.now_ns()

    def now_us(self) -> int:
        """Return the time since the script began."""
        return (self.env.now_ns() - self.start_ns) // 1000

    def settle(self) -> None:
        """Let the stack do all there is to do now."""
        for _ in range(_TURNS):
            busy = self.stack.poll()
            while frame := self.raw.receive():
                self._arrived(frame)
                busy = True
            if self.waiting is not None and self.waiting():
                busy = True
            if not busy:
                return
        raise Unsettled("the stack never comes to rest")

    def _arrived(self, frame: bytes) -> None:
        answer = frames.neighbour_answer(frame)
        if answer is not None:
            self.raw.send(answer)
        elif not frames.is_housekeeping(frame):
            try:
                packet = frames.decode(frame)
            except BadFrame as error:
                self.broken.append(str(error))
                return
            if packet is not None:
                self.queue.append(Seen(self.env.now_ns(), packet))

    def give(self, packet: bytes) -> None:
        """Send an IP packet to the stack and let it answer."""
        kind = frames.IPV6 if packet[0] >> 4 == 6 else frames.IPV4
        self.raw.send(frames.ethernet(packet, kind, self.end.mac))
        self.settle()

    def advance_to(self, end_ns: int, *, until_packet: bool = False) -> None:
        """Let time pass without missing a timer.

        :param until_packet: stop as soon as there is something in the queue.
        """
        while True:
            self.settle()
            if until_packet and self.queue:
                return
            due = [self.stack.deadline_ns, getattr(self.waiting, "wake_ns", None), end_ns]
            next_ns = min(each for each in due if each is not None)
            now = self.env.now_ns()
            if next_ns >= end_ns or now >= end_ns:
                break
            self.env.advance((max(next_ns - now, 1000)) / 1e9)
        if end_ns > self.env.now_ns():
            self._jump(end_ns)
            self.settle()

    def _jump(self, end_ns: int) -> None:
        self.env.advance((end_ns - self.env.now_ns()) / 1e9)

    def close(self) -> None:
        """Close the stack, after its invariants were verified."""
        try:
            self.stack.check()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a look at the invariants."""
        for each in (self.stack, self.heap, self.end, self.raw, self.env):
            each.close()
