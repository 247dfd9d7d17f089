"""``unikit net <verb>``: tools for TCP/IP stacks.

The grammar stands in :mod:`unikit.cli.net.grammar`; a verb is the function ``do_<verb>`` of the
module of that name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module


def do_net(choice: argparse.Namespace) -> int:
    """Run the verb that was chosen."""
    home = import_module(f"unikit.cli.net.{choice.tool}")
    act: Callable[[argparse.Namespace], int] = getattr(home, f"do_{choice.tool}")
    return act(choice)
