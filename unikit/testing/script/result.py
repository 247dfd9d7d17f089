"""What became of a script, and what its code may ask about a connection."""

from __future__ import annotations

import dataclasses
from typing import Any

_LINUX_STATES = (7, 10, 2, 3, 1, 4, 5, 8, 11, 9, 6)  # of KIT_TCP_*, as tcp_info numbers them
STATE_NAMES = {"TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4,
                "TCP_FIN_WAIT2": 5, "TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8,
                "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
                "TCP_INFINITE_SSTHRESH": 0x7FFFFFFF}
"""Constants of Linux that code in scripts compares with."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScriptResult:
    """What became of a script.

    :ivar status: ``passed``, ``failed``, or ``unsupported``: it asks for what the stack, or this
        interpreter, does not have.
    :ivar reason: in one line, without numbers, so that results can be counted by it.
    :ivar detail: where, what was expected, what was seen, what else was outstanding.
    :ivar notes: what was skipped or not judged.
    :ivar seconds: of virtual time.
    """

    name: str
    status: str
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything was as the script says."""
        return self.status == "passed"

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: passed"
        return self.detail or f"{self.name}: {self.status}: {self.reason}"


def tcp_names(info: Any) -> dict[str, Any]:
    """Return a ``struct kit_tcp_info`` under the names of Linux's ``tcp_info``."""
    found = {"state": _LINUX_STATES[info.state], "rtt": info.srtt_us, "snd_mss": info.mss,
             "total_retrans": info.retransmits}
    mss = max(info.mss, 1)
    for name, field, scale in (("snd_cwnd", "cwnd", mss), ("snd_ssthresh", "ssthresh", mss),
                               ("rttvar", "rttvar_us", 1), ("rto", "rto_us", 1)):
        if hasattr(info, field):
            value = int(getattr(info, field))
            found[name] = 0x7FFFFFFF if name == "snd_ssthresh" and value >= 2**31 else \
                value // scale
    return {f"tcpi_{name}": value for name, value in found.items()}
