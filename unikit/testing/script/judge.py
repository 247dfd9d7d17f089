"""Compares a packet that a script expects with one that a stack sent."""

from __future__ import annotations

from unikit.testing.script.model import Packet, TcpOption

FEATURES = {"sackOK": "sack", "sack": "sack", "TS": "timestamps", "FO": "fastopen",
            "FOEXP": "fastopen", "md5": "md5", "ECN": "accecn"}
"""Which feature of a stack a TCP option belongs to."""

_PADDING = ("nop", "eol")


def difference(wanted: Packet, seen: Packet, *, lenient: frozenset[str] | None, tick_us: int,
               tolerance_us: int, push_free: bool) -> str:
    """Say in words what differs; ``""``: nothing that matters.

    :param lenient: not ``None``: leave unjudged what a stack may choose, and the options of
        features outside this set.
    :param push_free: whether the PSH flag may stand anywhere.
    """
    if wanted.protocol != seen.protocol:
        return "another protocol"
    if wanted.ecn and seen.ecn not in (("ect0", "ect1") if wanted.ecn == "ect01"
                                       else (wanted.ecn,)):
        return "another ECN field"
    if wanted.tos is not None and wanted.tos != seen.tos:
        return "another type of service"
    if wanted.ttl is not None and wanted.ttl != seen.ttl:
        return "another time to live"
    if wanted.protocol == "udp":
        return "" if wanted.length == seen.length else "another length"
    if wanted.protocol == "icmp":
        same = wanted.icmp[0] == seen.icmp[0] and (not wanted.icmp[1]
                                                   or wanted.icmp[1] == seen.icmp[1])
        return "" if same else "another ICMP message"
    return _tcp(wanted, seen, lenient, tick_us, tolerance_us, push_free)


def _tcp(wanted: Packet, seen: Packet, lenient: frozenset[str] | None, tick_us: int,
         tolerance_us: int, push_free: bool) -> str:
    ignored = "P" if lenient is not None or push_free else ""
    if (set(wanted.flags) ^ set(seen.flags)) - set(ignored):
        return "other flags"
    if wanted.seq is not None and wanted.seq != seen.seq:
        return "another sequence number"
    if wanted.length != seen.length:
        return "another length"
    if "." in wanted.flags and wanted.ack is not None and wanted.ack != seen.ack:
        return "another acknowledgment"
    if wanted.window is not None and wanted.window != seen.window and lenient is None:
        return "another window"
    if wanted.urgent != seen.urgent:
        return "another urgent pointer"
    return _options(wanted, seen, lenient, tick_us, tolerance_us)


def _options(wanted: Packet, seen: Packet, lenient: frozenset[str] | None, tick_us: int,
             tolerance_us: int) -> str:
    if wanted.options is None:
        return ""
    said, found = list(wanted.options), list(seen.options or ())
    if lenient is not None:
        said, found = ([_loose(each) for each in sorted(options, key=repr)
                        if each[0] not in _PADDING and FEATURES.get(each[0], "") in lenient]
                       for options in (said, found))
    if [each[0] for each in said] != [each[0] for each in found]:
        return _other_options([each[0] for each in said], [each[0] for each in found])
    for one, other in zip(said, found, strict=True):
        if one[0] == "TS":
            if one[2] != other[2]:
                return "another timestamp echo"
            if tick_us and abs(one[1] - other[1]) * tick_us > max(tolerance_us, tick_us):
                return "another timestamp"
        elif one != other:
            return f"another value of the {one[0]} option"
    return ""


def _loose(option: TcpOption) -> TcpOption:
    """A stack chooses how far to scale its own window."""
    return ("wscale", 0) if option[0] == "wscale" else option


def _other_options(said: list[str], found: list[str]) -> str:
    if sorted(said) == sorted(found):
        return "TCP options in another order"
    real = [[kind for kind in kinds if kind not in _PADDING] for kinds in (said, found)]
    return "another padding of TCP options" if real[0] == real[1] else "other TCP options"


def lacking(wanted: Packet, seen: Packet | None, features: frozenset[str]) -> str:
    """Return the feature that a script expects and the stack does not claim; ``""``: none."""
    there = {each[0] for each in (seen.options or ())} if seen is not None else set()
    for option in wanted.options or ():
        feature = FEATURES.get(option[0])
        if feature and option[0] not in there and feature not in features:
            return feature
    ecn = set(wanted.flags) & set("EW") or wanted.ecn in ("ect0", "ect1", "ect01", "ce")
    if ecn and "ecn" not in features:
        return "ecn"
    return ""
