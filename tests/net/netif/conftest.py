"""Builds the hosted test image of ``image/`` with the stack under test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit import registry

HERE = Path(__file__).parent / "image"
ROOT = Path(__file__).parents[3]
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wvla", "-Wundef",
            "-Wmissing-prototypes", "-Wstrict-prototypes", "-Werror")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compile_c(output: Path, sources: list[Path], *flags: str) -> Path:
    """Compile hosted C of ours and link it; every warning is an error."""
    command = ["cc", "-std=gnu11", "-D_GNU_SOURCE", f"-I{ROOT}", *WARNINGS, *flags,
               *map(str, sources), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def build_image(tmp_path_factory):
    """Return a function that builds a test program around the stack ``net.mini``."""
    def build(name: str, sources: list[str], *, sanitize: bool = False) -> Path:
        """Build ``image/name.c`` with further hosted sources of ``unikit/net/netif``."""
        stack = registry.find("net.mini")
        return compile_c(tmp_path_factory.mktemp("image") / name,
                         [HERE / f"{name}.c", HERE / "services.c", ROOT / "unikit/rt/host.c",
                          *stack.source_files(),
                          *(ROOT / "unikit/net/netif" / source for source in sources)],
                         f"-DIMAGE_STACK={stack.symbol()}", *(SANITIZERS if sanitize else ["-O2"]))
    return build


@pytest.fixture(scope="session")
def stack_options():
    """Return a function that encodes options of ``net.mini`` as words of a command line."""
    def encode(**options: object) -> list[str]:
        return [str(value) for value in registry.find("net.mini")(**options).encoded()]
    return encode
