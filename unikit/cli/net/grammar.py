"""The grammar of ``unikit net``: arguments and their help only."""

from __future__ import annotations

import argparse

_SCRIPT = """examples:
  unikit net script tests/net/scripts               every script of a folder, on net.mini
  unikit net script --net mini -v close.pkt         one script, and what went wrong where
  unikit net script --lenient ~/packetdrill/tests   scripts written for another stack
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``unikit net`` to its parser."""
    verbs = parser.add_subparsers(dest="tool", metavar="VERB", required=True)
    summary = "run packet scripts (packetdrill's language) against a stack, in virtual time"
    one = verbs.add_parser("script", help=summary, description=summary, epilog=_SCRIPT,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("path", nargs="+", help="script, or folder of scripts (*.pkt)")
    one.add_argument("--net", metavar="NAME", default="mini", help="TCP/IP stack; default: mini")
    one.add_argument("--set", metavar="ID.OPTION=VALUE", action="append", default=[],
                     help="set an option of the stack; may be given several times")
    one.add_argument("--ip", type=int, choices=(4, 6), help="IP version; default: what a script "
                                                             "says, or 4")
    one.add_argument("--strict", action="store_true",
                     help="every packet must be in the script")
    one.add_argument("--lenient", action="store_true",
                     help="do not judge windows, PSH, the order of TCP options, and options that "
                          "the stack does not claim")
    one.add_argument("--define", metavar="NAME[=VALUE]", action="append", default=[],
                     help="word and what it stands for; #ifdef finds it")
    one.add_argument("-v", "--verbose", action="store_true", help="say where each failed, and why")
    one.add_argument("--json", action="store_true", help="as JSON")
