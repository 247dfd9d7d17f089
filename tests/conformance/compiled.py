"""Compile small C programs from portable sources, in the two hosted harnesses, and run them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

COMMON = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}"]
VARIANTS: Mapping[str, Sequence[str]] = {
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
                  "-fno-omit-frame-pointer"],
    "optimised": ["-O2"],
}
"""The hosted harnesses: under address and undefined-behaviour sanitizers, and as a release."""

_built: dict[str, Path] = {}
_folder: list[tempfile.TemporaryDirectory[str]] = []


def build(sources: Sequence[Path | str], *, variant: str = "sanitized",
          defines: Mapping[str, object] | None = None, flags: Sequence[str] = (),
          whole: bool = True) -> Path:
    """Compile and link sources (paths relative to the checkout, or absolute) into a program.

    ``unikit/rt/host.c`` is added: a panic prints its message and aborts. Not ``whole``: an object
    file that may be a source of other programs. The same call within one test run gives the same
    file.
    """
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    files = [str(ROOT / source) for source in sources]
    files += [str(ROOT / "unikit/rt/host.c")] if whole else ["-r", "-nostdlib"]
    options = [f"-D{name}={value}" for name, value in (defines or {}).items()]
    command = ["gcc", *COMMON, *VARIANTS[variant], *options, *files, *flags]
    key = hashlib.sha256("\0".join(command).encode()).hexdigest()[:16]
    if key not in _built:
        if not _folder:
            _folder.append(tempfile.TemporaryDirectory(prefix="unikit-conformance-"))
        out = Path(_folder[0].name) / f"{key}{'' if whole else '.o'}"
        done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        _built[key] = out
    return _built[key]


def run(program: Path, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program; its output as text. Sanitizer reports end it with a status of their own."""
    environment = {**os.environ, "ASAN_OPTIONS": "exitcode=99:abort_on_error=0",
                   "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout, env=environment)


def conforms(program: Path, *arguments: object) -> None:
    """Run a suite's program and fail with what it found."""
    done = run(program, *arguments)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def panic_of(program: Path, *arguments: object) -> str:
    """Run a program that breaks a contract; the message it panicked with."""
    done = run(program, *arguments)
    for line in done.stderr.splitlines():
        if line.startswith("unikit panic: "):
            assert done.returncode == -6, done.returncode
            return line.removeprefix("unikit panic: ")
    raise AssertionError(f"no panic; status {done.returncode}: {done.stdout}{done.stderr}")
