"""Compile the C programs of these tests as a component's users would, and run them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from unikit.component import Component

ROOT = Path(__file__).resolve().parents[2]
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
BUILDS = {
    "optimised": ("-O2",),
    "sanitized": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
}
"""Compiler flags by name; the same sources must behave alike in both."""

_folder = TemporaryDirectory(prefix="unikit-test-sched-")


@cache
def build(record: type[Component], main: str, how: str) -> Path:
    """Compile ``main`` with a scheduler, synchronisation and the suite; the executable."""
    target = Path(_folder.name) / f"{record.stem()}-{Path(main).stem}-{how}"
    suite = sorted((ROOT / "unikit/testing").glob("suite_sched*.c"))
    subprocess.run(
        ["gcc", "-std=gnu11", *BUILDS[how], *WARNINGS, f"-I{ROOT}",
         f"-DCOMPONENT={record.symbol()}", "-o", target, ROOT / main, *record.source_files(),
         ROOT / "unikit/sched/sync.c", ROOT / "unikit/testing/virtual.c", *suite],
        check=True, cwd=ROOT)
    return target


def run(program: Path, *arguments: object) -> tuple[int, str]:
    """Run a program; its exit status, and what it printed."""
    done = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=120, check=False)
    return done.returncode, done.stdout
