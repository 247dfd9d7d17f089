"""The record of ``net.inet``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Stack


@component
class Inet(Stack):
    """The full TCP/IP stack: IPv4 with fragments, ARP, ICMP, UDP, and TCP as kernels speak it.

    TCP after RFC 9293 with window scaling, timestamps, selective acknowledgment, RACK-TLP loss
    detection, proportional rate reduction, CUBIC or NewReno, F-RTO, ECN, path MTU discovery, SYN
    cookies and the RFC 5961 and 6528 hardening. All tables are hashed, all memory is counted and
    bounded, checksums and super-frames are left to interfaces that can do them.
    """

    id = "net.inet"
    features = frozenset({"tcp", "udp", "ipv4", "connect"})
    sources = ("inet.c", "info.c", "check.c", "link.c", "neighbour.c", "route.c", "ip.c",
               "fragments.c", "icmp.c", "udp.c", "table.c", "queue.c", "assembly.c", "board.c",
               "rack.c", "flow.c", "cubic.c", "timer.c", "tcp_in.c", "tcp_open.c", "tcp_data.c",
               "tcp_ack.c", "tcp_loss.c", "tcp_out.c", "tcp_segment.c", "tcp_timer.c",
               "tcp_life.c", "socket.c")
    reference = ("RFC 9293, 7323, 2018, 2883, 6675, 8985, 6937, 9438, 5681, 6582, 5682, 3522, "
                 "6298, 6928, 3168, 1191, 5961, 6528, 4987, 6191; 826, 791, 815, 5722, 792, 768, "
                 "1122")

    address: str = option("", "own address and network; empty: configured later", kind="prefix",
                          when="boot")
    gateway: str = option("0.0.0.0", "router to other networks; 0.0.0.0: none", kind="address",
                          when="boot")
    connections: int = option(65536, "TCP connections at once, TIME_WAIT not counted", minimum=1,
                              maximum=4 << 20)
    send_buffer: int | str = option(
        "4M", "bytes a connection may queue; taken as needed, and no more than twice what the "
        "network takes", kind="size", maximum=256 << 20, unit="bytes")
    receive_buffer: int | str = option(
        "4M", "largest window offered; it starts at 64K and grows with the reader's speed",
        kind="size", maximum=256 << 20, unit="bytes")
    nagle: bool | str = option(
        False, "hold small segments back while others are in flight; what one event writes goes "
        "out together in any case", kind="bool")
    time_wait: int | str = option(
        "60s", "how long the numbers of a closed connection stay taken; a peer's new SYN may take "
        "them before", kind="duration", maximum=600 * 10**9)
    udp_sockets: int = option(1024, "open UDP ports at once", maximum=16384)
    udp_buffer: int | str = option("128K", "bytes of datagrams a UDP port may hold", kind="size",
                                   maximum=256 << 20, unit="bytes")
    neighbours: int = option(256, "neighbours known at once", minimum=1, maximum=65536)
    congestion: str = option("cubic", "congestion control", kind="choice",
                             choices=("cubic", "newreno"))
    ecn: str = option("accept", "explicit congestion notification: never, if the peer asks for it, "
                      "or asked for as well", kind="choice", choices=("off", "accept", "ask"))
    keepalive: int | str = option("0s", "silence after which a peer is asked whether it is there; "
                                  "0: never", kind="duration", maximum=86400 * 10**9)
    user_timeout: int | str = option(
        "300s", "how long data may stay unacknowledged until the connection is given up",
        kind="duration", minimum=100 * 10**9, maximum=86400 * 10**9)
    memory: int | str = option("0", "bytes the stack takes at most; 0: what its allocator gives",
                               kind="size", unit="bytes")
    fragments: int | str = option("256K", "bytes of incomplete datagrams held at most",
                                  kind="size", maximum=64 << 20, unit="bytes")
