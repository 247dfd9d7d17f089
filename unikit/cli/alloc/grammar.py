"""The grammar of ``unikit alloc``: one function per verb, arguments and their help only."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``unikit alloc`` to its parser."""
    verbs = parser.add_subparsers(dest="tool", metavar="VERB", required=True)
    del verbs  # each tool adds its verb here


def _verb(verbs: Any, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter, **more)
    return made
