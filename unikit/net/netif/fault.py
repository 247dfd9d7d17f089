"""The record of ``netif.fault``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Layer

_COUNTERS = ("frames", "lost", "lost_in_bursts", "overflowed", "no_slot", "marked", "corrupted",
             "truncated", "duplicated", "reordered")


@component
class Fault(Layer):
    """A bad network: loses, doubles, reorders, damages and delays frames, and limits their rate.

    Each direction has its own luck and its own queue; two layers give the directions different
    rates: ``Fault(Fault(Tap("uk0"), direction="in", loss="1%"), direction="out", delay="20ms")``.
    All follows from the seed and the clock, so in virtual time a run repeats exactly.
    """

    id = "netif.fault"
    sources = ("fault.c",)
    reference = "Elliott, Estimates of error rates for codes on burst-noise channels, BSTJ 42, 1963"
    counters = (*(f"out_{name}" for name in _COUNTERS), *(f"in_{name}" for name in _COUNTERS))

    seed: int = option(1, "what all chances follow from", maximum=2**63 - 1)
    direction: str = option("both", "which frames suffer: both ways, those sent (out), or those "
                            "received (in)", kind="choice", choices=("both", "out", "in"))
    loss: float | str = option(0.0, "share of frames lost, each by itself", kind="ratio")
    burst_start: float | str = option(0.0, "chance per frame that a bad time begins", kind="ratio")
    burst_end: float | str = option(1.0, "chance per frame that it ends", kind="ratio")
    burst_loss: float | str = option(1.0, "share of frames lost in a bad time", kind="ratio")
    duplicate: float | str = option(0.0, "share of frames doubled", kind="ratio")
    reorder: float | str = option(0.0, "share of frames held back, so that others overtake them",
                                  kind="ratio")
    hold: int | str = option("1ms", "longest time they are held back", kind="duration",
                             maximum=10**12)
    corrupt: float | str = option(0.0, "share of frames with one bit flipped behind the Ethernet "
                                  "header", kind="ratio")
    truncate: float | str = option(0.0, "share of frames cut short", kind="ratio")
    delay: int | str = option(0, "time under way", kind="duration", maximum=10**12)
    jitter: int | str = option(0, "longest time beyond that, evenly spread; the order stays",
                               kind="duration", maximum=10**12)
    rate: int = option(0, "what the bottleneck carries; 0: no bottleneck", unit="bit/s",
                       maximum=10**12)
    queue: int = option(256, "frames the bottleneck holds; one more is dropped", minimum=1,
                        maximum=1 << 20)
    mark: int = option(0, "frames in that queue from which on ECN-capable packets are marked; 0: "
                       "never", maximum=1 << 20)
    slots: int = option(1024, "frames under way per direction at most; one more is dropped",
                        minimum=1, maximum=1 << 20)
