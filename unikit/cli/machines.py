"""``ps``, ``logs``, ``stop`` and ``stats``: commands about running machines."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from typing import Any

from unikit.cli import control
from unikit.cli.output import table
from unikit.errors import InvalidArgument, NotFound, PlatformError, TimedOut


def do_ps(choice: argparse.Namespace) -> int:
    """Print the running machines."""
    rows = []
    for name in control.running():
        try:
            rows.append(control.ask(name, "info"))
        except (NotFound, PlatformError):
            continue  # it ended just now
    if choice.json:
        print(json.dumps(rows, indent=2))
        return 0
    table(("NAME", "PLATFORM", "MEMORY", "PID", "UP", "IMAGE"),
          [(row["name"], row["platform"], row["memory"], row["pid"],
            f"{time.time() - row['started']:.0f} s", row["image"]) for row in rows])
    return 0


def do_logs(choice: argparse.Namespace) -> int:
    """Print the console of a machine; of an ended one that was detached, what it left."""
    try:
        if choice.follow:
            for chunk in control.follow(choice.name):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        else:
            sys.stdout.write(control.ask(choice.name, "logs")["text"])
    except NotFound:
        with contextlib.suppress(InvalidArgument):
            control.check_name(choice.name)
            path = control.log_path(choice.name)
            if path.exists():
                sys.stdout.write(path.read_text(errors="replace"))
                return 0
        raise
    return 0


def do_stop(choice: argparse.Namespace) -> int:
    """Stop machines and wait until they are gone."""
    for name in choice.name:
        control.ask(name, "stop")
        end = time.monotonic() + 10
        while name in control.running():
            if time.monotonic() > end:
                raise TimedOut(f"machine {name} was told to stop and is still there after 10 s")
            time.sleep(0.01)
        print(f"{name} stopped")
    return 0


def do_stats(choice: argparse.Namespace) -> int:
    """Print the counters of a machine."""
    stats = control.ask(choice.name, "stats")
    if choice.json:
        print(json.dumps(stats, indent=2))
    elif choice.prometheus:
        sys.stdout.write(prometheus(choice.name, stats))
    else:
        table(("", ""), stats.items())
    return 0


def prometheus(name: str, stats: dict[str, Any]) -> str:
    """Return counters in the Prometheus text format, version 0.0.4; words become labels."""
    label = name.replace("\\", "\\\\").replace('"', '\\"')
    lines = []
    for key, value in stats.items():
        if isinstance(value, bool | int | float):
            metric = "unikit_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)
            figure = f"{value:g}" if isinstance(value, float) else f"{int(value)}"
            lines += [f"# TYPE {metric} untyped", f'{metric}{{machine="{label}"}} {figure}']
    return "\n".join(lines) + "\n"
