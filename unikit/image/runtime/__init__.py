"""The runtime of an image: its life cycle and :file:`app.h`, in freestanding C.

``composition.h`` is what the emitted ``composition.c`` must define.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def sources(*, events: bool, net: bool, threads: bool, layers: bool = False,
            cpus: bool = False, preempt: bool = False, tls: bool = False) -> tuple[Path, ...]:
    """Return the C files that an image with these parts compiles.

    :param events: the plan has a scheduler.
    :param net: the plan has a TCP/IP stack.
    :param threads: its scheduler claims ``KIT_SCHED_THREADS``.
    :param layers: its allocator has layers.
    :param cpus: it may get several processors.
    :param preempt: tasks may be stopped against their will.
    :param tls: the application has thread-local variables.
    """
    names = ["main.c", "app.c", "memory.c", "options.c", "files.c"]
    if events:
        names.append("events.c")
    if net:
        names.append("net.c")
    if threads:
        names += ["thread.c", "deadlock.c"]
    if net and threads:
        names.append("blocking.c")
    if cpus:
        names.append("cpus.c")
    if layers:
        names.append("layers.c")
    if preempt:
        names.append("preempt.c")
    if tls:
        names.append("tls.c")
    return tuple(_FOLDER / name for name in names)


SERVES = {
    "events": ("events.c", "a scheduler", 'sched="loop"'),
    "net": ("net.c", "a network stack", 'net="mini"'),
    "thread": ("thread.c", "a scheduler with threads", 'sched="coop"'),
    "blocking": ("blocking.c", "a network stack and a scheduler with threads",
                 'net="mini", sched="coop"'),
}
"""Which file serves what, in words: for the message when an application calls what it lacks."""


def lacking(symbol: str) -> tuple[str, str] | None:
    """Say what a composition lacks when the linker does not find ``symbol``.

    :returns: what is missing in words and what to write to get it; ``None``: not one of app.h's.
    """
    if symbol.startswith(("kit_tcp_wait_", "kit_tcp_read", "kit_tcp_write")):
        return SERVES["blocking"][1:]
    if symbol.startswith(("kit_tcp_", "kit_udp_", "kit_net_")):
        return SERVES["net"][1:]
    if symbol.startswith(("kit_task_join", "kit_task_yield", "kit_task_sleep_until", "kit_mutex_",
                          "kit_condition_", "kit_semaphore_")):
        return SERVES["thread"][1:]
    if symbol.startswith(("kit_task_", "kit_timer_")):
        return SERVES["events"][1:]
    return None
