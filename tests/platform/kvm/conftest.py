"""An image of nothing but the platform, to test it by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unikit.image import elf, toolchain
from unikit.platform.api import BootImage, Machine
from unikit.platform.kvm import Kvm

ROOT = toolchain.ROOT / "unikit"
PROBE = Path(__file__).with_name("probe.c")
NOTE = """
    .section .note.unikit, "", @note
    .balign 4
    .long 7, {size}, 2
    .asciz "unikit"
    .balign 4
    .ascii "{text}"
    .balign 4
    .section .note.GNU-stack, "", @progbits
"""


def build(folder: Path) -> Path:
    """Build ``probe.c`` on the guest side of platform.kvm."""
    plan = json.dumps({"format": 1, "name": "probe", "components": {}, "entries": ["kvm"]})
    note = folder / "note.S"
    note.write_text(NOTE.format(size=len(plan), text=plan.replace('"', '\\"')))
    units = [toolchain.Unit(path, ("KIT_WITH_CPUS=0",), lto=path.suffix == ".c")
             for path in (*Kvm.entry_sources(), PROBE, ROOT / "rt/format.c",
                          ROOT / "platform/x86/generator.c", note)]
    units.append(toolchain.Unit(ROOT / "rt/string.c", lto=False))
    target = folder / "probe.elf"
    toolchain.link(toolchain.compile_all(units), ROOT / "platform/x86/image.ld", target)
    return target


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> BootImage:
    """``probe.c`` as an image."""
    return elf.load(build(tmp_path_factory.mktemp("kvm-probe")))


@pytest.fixture
def boot(kvm: None, probe: BootImage) -> Iterator[Callable[..., Machine]]:
    """Boot the probe with an argument string; everything booted is closed afterwards."""
    machines: list[Machine] = []

    def start(argument: str = "", *, memory: int = 4 << 20, platform: Kvm | None = None,
              **more: Any) -> Machine:
        options = {**more.pop("options", {}), "": argument}
        machine = (platform or Kvm()).boot(probe, memory=memory, options=options, **more)
        machines.append(machine)
        return machine

    yield start
    for machine in machines:
        machine.close()
