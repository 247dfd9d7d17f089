"""The grammar of ``unikit alloc``: one function per verb, arguments and their help only."""

from __future__ import annotations

import argparse
import contextlib
import math
from typing import Any

_RECORD = """examples:
  unikit alloc record -o app.trace -- python3 app.py
  unikit alloc record --pid 1234 --for 10s -o server.trace
"""
_REPLAY = """examples:
  unikit alloc replay app.trace --allocator tlsf,shard
  unikit alloc replay app.trace --allocator shard --where process,preload,image,image:kvm
"""
_RUN = """examples:
  unikit alloc run --allocator tlsf -- python3 app.py
  unikit alloc run --allocator tlsf --stats -- git status
  unikit alloc run --allocator tlsf --reserve 8G -- redis-server
  unikit alloc run --allocator guard,tlsf --leaks -- ./program
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``unikit alloc`` to its parser."""
    verbs = parser.add_subparsers(dest="tool", metavar="VERB", required=True)
    _compare(verbs)
    _show(verbs)
    _advise(verbs)
    _run(verbs)
    _record(verbs)
    _replay(verbs)


def _verb(verbs: Any, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter, **more)
    return made


def _allocators(one: argparse.ArgumentParser) -> None:
    one.add_argument("--allocator", metavar="NAME[,NAME]", action="append", default=[],
                     help="only these: names of components (shard, guard+tlsf, "
                          "tlsf:pool=64M), of installed allocators (jemalloc), or files (./my.so); "
                          "default: all that are found")


def _outputs(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="the result as JSON")
    one.add_argument("--picture", metavar="FILE",
                     help="draw it: .svg; with matplotlib also .png, .pdf")
    one.add_argument("--report", metavar="FILE", help="write a page that stands alone: .html")


def _compare(verbs: Any) -> None:
    one = _verb(
        verbs, "compare", "run a program, a server or a trace with every allocator found",
        epilog="examples:\n"
               "  unikit alloc compare -- python3 app.py\n"
               "  unikit alloc compare --allocator jemalloc,tlsf -- ./work\n"
               "  unikit alloc compare --load 'redis-benchmark -n 200000 -q' -- redis-server\n"
               "  unikit alloc compare app.trace --report app.html")
    one.add_argument("program", nargs="*", metavar="TRACE | -- PROGRAM",
                     help="a recorded trace, or a program with its arguments after --")
    _allocators(one)
    group = one.add_argument_group("measuring")
    group.add_argument("--rounds", type=int, metavar="N",
                       help="measured runs per allocator; default: 5 to 25, as time allows")
    group.add_argument("--timeout", type=float, metavar="S",
                       help="of one run, in seconds; default: ten times the baseline's, and 10")
    group.add_argument("--pin", nargs="?", const="auto", metavar="CPU",
                       help="keep the program on one CPU; for programs of one thread")
    group.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True,
                       help="also record a run and replay it, which gives the latency of single "
                            "operations and fragmentation")
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of the order of runs")
    group.add_argument("--verbose", action="store_true", help="show what programs print")
    group = one.add_argument_group("servers")
    group.add_argument("--load", metavar="COMMAND",
                       help="the program is a server: start it, wait until it listens, run this, "
                            "end it by SIGTERM")
    group.add_argument("--port", type=int, metavar="N", help="where it listens; default: found out")
    group.add_argument("--ready", metavar="COMMAND", help="it is ready once this succeeds")
    group.add_argument("--grace", type=float, default=5.0, metavar="S",
                       help="between SIGTERM and SIGKILL, in seconds")
    group.add_argument("--metric", metavar="REGEX",
                       help="finds the throughput in what the load prints; its group is the number")
    group.add_argument("--here", action="store_true",
                       help="run the server in this folder, not in an empty one for each run")
    _outputs(one)


def _show(verbs: Any) -> None:
    one = _verb(verbs, "show", "show what a recorded trace holds",
                epilog="examples:\n"
                       "  unikit alloc show app.trace\n"
                       "  unikit alloc show app.trace --report app.html")
    one.add_argument("trace", help="a file written by unikit alloc record")
    one.add_argument("--allocator", metavar="NAME[,NAME]", action="append", default=[],
                     help="components to replay it on, to show their fragmentation")
    _outputs(one)


def _advise(verbs: Any) -> None:
    one = _verb(verbs, "advise", "say which allocator suits a trace or a program, with evidence",
                epilog="examples:\n"
                       "  unikit alloc advise app.trace --for latency\n"
                       "  unikit alloc advise -- python3 app.py")
    one.add_argument("program", nargs="*", metavar="TRACE | -- PROGRAM",
                     help="a recorded trace, or a program to record, after --")
    one.add_argument("--for", dest="aim", default="balance", metavar="AIM",
                     choices=("balance", "speed", "memory", "latency"),
                     help="what matters most: balance, speed, memory or latency")
    _allocators(one)
    one.add_argument("--rounds", type=int, metavar="N", help="measured replays per candidate")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="of the order of replays")
    one.set_defaults(timeout=None)
    _outputs(one)


def _run(verbs: Any) -> None:
    one = _verb(verbs, "run", "run a program with another allocator", epilog=_RUN)
    one.add_argument("--allocator", metavar="NAME[,NAME]", required=True,
                     help="an allocator, or layers over one from the outside in")
    one.add_argument("--set", metavar="ID.OPTION=VALUE", action="append", default=[],
                     help="set an option; may be given several times")
    one.add_argument("--reserve", metavar="SIZE",
                     help="address space for the heap; default: as much as the machine has memory")
    one.add_argument("--hugepages", action="store_true",
                     help="ask the kernel for transparent huge pages")
    one.add_argument("--stats", action="store_true",
                     help="print statistics of each process when it exits")
    one.add_argument("--json", metavar="FILE",
                     help="append them to a file instead, a line of JSON for each process")
    one.add_argument("--leaks", action="store_true",
                     help="list at exit what was never freed, by call site; with a layer that "
                          "keeps them: --allocator guard,tlsf")
    one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- PROGRAM ARGS")


def _record(verbs: Any) -> None:
    one = _verb(verbs, "record", "record what a program asks of its allocator", epilog=_RECORD)
    one.add_argument("-o", "--output", metavar="FILE", default="app.trace",
                     help="the trace; children go to FILE.PID; default: app.trace")
    one.add_argument("--pid", type=int, metavar="N",
                     help="a running process instead: it goes on, before, meanwhile and after")
    one.add_argument("--for", dest="duration", metavar="TIME", type=_seconds,
                     help="with --pid: how long, 10s or 500ms; default: until Ctrl-C or its end")
    one.add_argument("--no-names", dest="names", action="store_false",
                     help="do not look up the names of call sites now")
    one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- PROGRAM ARGS")


def _replay(verbs: Any) -> None:
    one = _verb(verbs, "replay", "replay a trace: in this process, in an image, through preload",
                epilog=_REPLAY)
    one.add_argument("trace", help="a file of unikit alloc record")
    _allocators(one)
    one.add_argument("--where", metavar="PLACE[,PLACE]", default="process",
                     help="process, preload, image (on linux), image:kvm ...; default: process")
    one.add_argument("--rounds", type=int, default=3, metavar="N", help="timed replays")
    one.add_argument("--touch", choices=("none", "first", "pages", "all"), default="first",
                     help="what is written into new blocks: nothing, a byte, one in each page, all")
    one.add_argument("--parallel", action="store_true",
                     help="in process: real threads instead of the recorded order")
    one.add_argument("--memory", metavar="SIZE", default="0",
                     help="of the region; default: four times what the program needed, and 64M")
    one.add_argument("--json", action="store_true", help="the result as JSON")


def _seconds(text: str) -> float:
    """Return a duration in seconds: ``10``, ``10s``, ``500ms``, ``2m``."""
    for ending, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
        if text.endswith(ending):
            with contextlib.suppress(ValueError):
                if 0 <= (found := float(text.removesuffix(ending)) * factor) < math.inf:
                    return found
            break
    raise argparse.ArgumentTypeError(f"{text!r} is no time; write 10s, 500ms or 2m")
