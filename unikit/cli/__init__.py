"""The command line: ``unikit <verb>`` for images, ``unikit <domain> <verb>`` for a domain's tools.

This file knows the grammar; what a verb does stands in :mod:`unikit.cli.images` (list, build,
inspect), :mod:`unikit.cli.run` (run), :mod:`unikit.cli.machines` (ps, logs, stop, stats),
:mod:`unikit.cli.new`, :mod:`unikit.cli.doctor`, :mod:`unikit.cli.export` and, for the tools of
a domain, :mod:`unikit.cli.alloc`, :mod:`unikit.cli.sched` and :mod:`unikit.cli.net`. Each is
imported when it is needed, so that a short command is short.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from unikit import __version__
from unikit.cli.alloc import grammar as alloc
from unikit.cli.net import grammar as net
from unikit.cli.sched import grammar as sched
from unikit.errors import CompositionError, GuestExit, ToolchainError, UnikitError

_EPILOG = """examples:
  unikit run http                         serve a web page from a virtual machine
  unikit run http --alloc firstfit        the same with another allocator
  unikit build http -o http.elf           one file for every platform
  unikit new blog && unikit run ./blog    an application of your own
  unikit doctor                           what this machine offers
"""


def _choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose components."""
    group = parser.add_argument_group("components (names as in `unikit list`)")
    group.add_argument("--alloc", metavar="NAME[,NAME]",
                       help="allocator; layers before it, from the outside in")
    group.add_argument("--sched", metavar="NAME", help="scheduler")
    group.add_argument("--net", metavar="NAME", help="TCP/IP stack, or none")
    group.add_argument("--console", metavar="NAME[,NAME]", help="console, or several")
    group.add_argument("--set", metavar="ID.OPTION=VALUE", action="append", default=[],
                       help="set an option; may be given several times")
    group.add_argument("--cpus", metavar="N", type=int, default=None,
                       help="processors, at most; run: of an image that exists, how many it gets")
    group.add_argument("--preempt", choices=("auto", "on", "off"), default=None,
                       help="whether tasks are stopped when their slice is over; "
                            "auto: where the scheduler can")
    group.add_argument("--files", metavar="DIR", help="folder to pack into the image")
    group.add_argument("--for", metavar="PLATFORM[,PLATFORM]", dest="platforms",
                       help="platform entries to carry; default: all")
    group.add_argument("--optimise", choices=("speed", "size", "debug"), default=None)


def parser() -> argparse.ArgumentParser:
    """Return the grammar of the whole command."""
    top = argparse.ArgumentParser(
        prog="unikit", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compose unikernel images from components, boot them, look into them.")
    top.add_argument("--version", action="version", version=f"unikit {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, home: str, summary: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=summary, description=summary)
        made.set_defaults(home=home)
        return made

    one = verb("list", "images", "list components, applications and platforms")
    one.add_argument("domain", nargs="?", help="only this domain: alloc, sched, net ...")
    one.add_argument("--json", action="store_true", help="as JSON")
    one = verb("new", "new", "write a small application of your own")
    one.add_argument("name", help="its name; a folder of that name is made")
    one = verb("build", "images", "build an image")
    one.add_argument("target", help="a bundled application or a folder")
    one.add_argument("-o", "--output", metavar="FILE", help="default: NAME.elf")
    one.add_argument("--plan", action="store_true", help="show what would be built, build nothing")
    one.add_argument("--json", action="store_true", help="plan or result as JSON")
    _choices(one)
    one = verb("inspect", "images", "show what an image is made of")
    one.add_argument("target", help="a bundled application, a folder or an ELF file")
    one.add_argument("--json", action="store_true", help="as JSON")
    one = verb("run", "run", "boot an image")
    one.add_argument("target", help="a bundled application, a folder or an ELF file")
    one.add_argument("args", nargs="*", metavar="-- ARGS", help="the application's arguments")
    one.add_argument("--platform", default="auto", help="auto, kvm, linux ...")
    one.add_argument("--memory", default="16M", metavar="SIZE", help="all the guest gets")
    one.add_argument("--netif", metavar="KIND", default=None,
                     help="user (no privileges), tap, tap:NAME or none; default: user; layers "
                          "before it, from the image's side outwards: fault,tap")
    one.add_argument("--pcap", metavar="FILE", help="write every frame to a pcapng file")
    one.add_argument("--forward", metavar="HOST:GUEST", action="append",
                     help="with --netif user: port of 127.0.0.1 to port of the image; udp:H:G")
    one.add_argument("--name", metavar="NAME", help="of the machine; default: of the image")
    one.add_argument("--detach", action="store_true", help="return once it runs")
    one.add_argument("--quiet", action="store_true", help="nothing but the console")
    one.add_argument("--trace", metavar="FILE",
                     help="with --alloc trace,NAME: what was asked of the allocator, at the end")
    _choices(one)
    one = verb("ps", "machines", "list running machines")
    one.add_argument("--json", action="store_true", help="as JSON")
    one = verb("logs", "machines", "show the console of a machine")
    one.add_argument("name")
    one.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    one = verb("stop", "machines", "stop machines")
    one.add_argument("name", nargs="+")
    one = verb("stats", "machines", "show counters of a machine")
    one.add_argument("name")
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--prometheus", action="store_true", help="as Prometheus text")
    one = verb("export", "export", "write a component as sources, header and pkg-config file")
    one.add_argument("component", help="an id: alloc.tlsf")
    one.add_argument("folder", help="where to write it")
    one = verb("doctor", "doctor", "say what this machine offers and what would help")
    one.add_argument("--json", action="store_true", help="as JSON")
    alloc.add(verb("alloc", "alloc", "compare allocators on programs, servers and traces"))
    sched.add(verb("sched", "sched", "simulate and measure schedulers"))
    net.add(verb("net", "net", "test TCP/IP stacks with packet scripts"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done; 1: it failed, the reason is on standard error in one line; 2: wrong usage; ``run``
    returns what the image returned; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        choice = parser().parse_args(words)
        choice.words = words
        home = import_module(f"unikit.cli.{choice.home}")
        act: Callable[[argparse.Namespace], int] = getattr(home, f"do_{choice.verb}")
        return act(choice)
    except CompositionError as error:
        for problem in error.problems:
            complain(problem)
    except ToolchainError as error:
        complain(str(error).splitlines()[0] if str(error) else "a tool failed")
        if error.stderr:
            sys.stderr.write(error.stderr.rstrip() + "\n")
    except GuestExit as error:
        complain(str(error))
        _where(error)
        return error.code
    except UnikitError as error:
        complain(_plain(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  the interpreter flushes it at exit
        return 1
    except OSError as error:  # what no layer below could name better: a full disk, a lost folder
        complain(_plain(error))
    except MemoryError:
        complain("this host has no memory left for it")
    return 1


def complain(message: str) -> None:
    """Write one line to standard error, if that is open."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"unikit: {message}\n")
        sys.stderr.flush()


def _plain(error: Exception) -> str:
    """Return an error's message without the number that OSError puts before it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    text: str = error.strerror + (f": {error.filename}" if error.filename else "")
    return text + ("; free some, or name other folders (UNIKIT_CACHE, TMPDIR, those of options)"
                   if error.errno in (errno.ENOSPC, errno.EDQUOT) else "")


def _where(error: GuestExit) -> None:
    """Write registers and backtrace of an image that panicked or faulted."""
    words = [f"{name}={value:#x}" for name, value in error.registers.items()]
    lines = ["  " + " ".join(words[at:at + 5]) for at in range(0, len(words), 5)]
    lines += [f"  {'in' if index == 0 else 'by'} {line}"
              for index, line in enumerate(error.backtrace)]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))
