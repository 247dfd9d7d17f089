"""The record of ``net.mini``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Stack


@component
class Mini(Stack):
    """A small TCP/IP stack: one IPv4 address, ARP, ICMP echo, UDP, and TCP for real peers.

    TCP after RFC 9293 with window scaling, reassembly, NewReno congestion control, RFC 6298 timers
    and the RFC 5961 and 6528 hardening; connections are found by hash, their buffers grow with use.
    Not in it: IPv6, fragments, timestamps, selective acknowledgment, SYN cookies, offloads.
    """

    id = "net.mini"
    features = frozenset({"tcp", "udp", "ipv4", "connect"})
    sources = ("mini.c", "link.c", "note.c", "arp.c", "ipv4.c", "udp.c", "table.c", "ring.c",
               "tcp_in.c", "tcp_ack.c", "tcp_out.c", "timer.c", "socket.c", "check.c")
    size_first = True  # 3 % of an HTTP request's time is spent here: kernel, copies and wakes rule
    reference = "RFC 9293, 5681, 6298, 6582, 5961, 6528, 7323; 826, 791, 792, 768, 1122"

    address: str = option("", "own address and network; empty: configured later", kind="prefix",
                          when="boot")
    gateway: str = option("0.0.0.0", "router to other networks; 0.0.0.0: none", kind="address",
                          when="boot")
    connections: int = option(256, "TCP connections at once, TIME_WAIT not counted", minimum=1,
                              maximum=65536)
    send_buffer: int | str = option(
        "64K", "bytes a connection may queue; rounded up to a power of two, taken as needed",
        kind="size", maximum=16 << 20, unit="bytes")
    receive_buffer: int | str = option(
        "64K", "largest window offered; rounded up to a power of two, taken as needed",
        kind="size", maximum=16 << 20, unit="bytes")
    nagle: bool | str = option(
        False, "hold small segments back while others are in flight; what one event writes goes "
        "out together in any case", kind="bool")
    time_wait: int | str = option(
        "60s", "how long the numbers of a closed connection stay taken; a peer's new SYN may take "
        "them before", kind="duration", maximum=600 * 10**9)
    udp_sockets: int = option(32, "open UDP ports at once", maximum=1024)
    udp_buffer: int | str = option("32K", "bytes of datagrams a UDP port may hold", kind="size",
                                   maximum=16 << 20, unit="bytes")
    arp_entries: int = option(32, "neighbours known at once", minimum=1, maximum=4096)
