"""The five memory functions, the formatter, dates and processor features, against libc."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
RENAMED = [f"-D{name}=kit_{name}" for name in ("memcpy", "memmove", "memset", "memcmp", "strlen")]
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wno-format-truncation")


def build(folder: Path, *flags: str) -> Path:
    """Compile string.c as images do, with other names, and the program with the given flags."""
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-ffreestanding", "-mgeneral-regs-only",
                    "-fno-tree-loop-distribute-patterns", *WARNINGS, *RENAMED, f"-I{ROOT}", "-c",
                    ROOT / "unikit/rt/string.c", "-o", folder / "string.o"], check=True)
    program = folder / "rt"
    subprocess.run(["gcc", "-std=gnu11", "-g", *WARNINGS, *flags, f"-I{ROOT}", "-o", program,
                    ROOT / "tests/rt/rt_program.c", ROOT / "unikit/rt/format.c",
                    folder / "string.o"], check=True)
    return program


@pytest.mark.parametrize("flags", [("-O1", "-fsanitize=address,undefined",
                                    "-fno-sanitize-recover=all"), ("-O2",)],
                         ids=["sanitizers", "optimised"])
def test_everything_agrees_with_libc(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Random sizes, overlaps, alignments, ends of mappings, formats and days; no byte differs."""
    done = subprocess.run([build(tmp_path, *flags)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("format", ["%f", "%", "%5", "%n", "%ls"])
def test_a_wrong_format_panics(tmp_path: Path, format: str) -> None:
    """A format that is not served is a bug of the caller and says so."""
    done = subprocess.run([build(tmp_path, "-O1"), format], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 3
    assert done.stdout.startswith("panic: kit_format: ")


def test_the_memory_functions_do_not_call_themselves(tmp_path: Path) -> None:
    """A compiler that sees a copying loop writes a call to memcpy: in memcpy that never returns."""
    build(tmp_path, "-O1")
    seen = subprocess.run(["nm", "-u", tmp_path / "string.o"], capture_output=True, text=True,
                          check=True).stdout
    assert seen.strip() == ""
