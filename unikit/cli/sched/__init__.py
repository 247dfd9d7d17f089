"""``unikit sched <verb>``: schedulers listed, simulated and measured.

The grammar stands in :mod:`unikit.cli.sched.grammar`; a verb is the function ``do_<verb>`` of the
module of that name. Programs that measure are started here and nowhere in :mod:`unikit.sched`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from unikit.cli.ending import orderly

_HOME = {"list": "listing"}


def do_sched(choice: argparse.Namespace) -> int:
    """Run the verb that was chosen."""
    home = import_module(f"unikit.cli.sched.{_HOME.get(choice.tool, choice.tool)}")
    act: Callable[[argparse.Namespace], int] = getattr(home, f"do_{choice.tool}")
    with orderly():
        return act(choice)
