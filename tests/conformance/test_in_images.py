"""The third harness: the suites freestanding in images, where components are called directly.

The allocators' are in ``tests/alloc/test_in_image.py``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from unikit.alloc import Allocator, Tlsf
from unikit.component import Component, component
from unikit.image import Image
from unikit.image.plan import Plan
from unikit.net import Interface, Loopback, Mini, Pipe
from unikit.platform.console import Buffer, ConsoleComponent, Null, Platform, Syslog, Tee
from unikit.sched import Coop, Edf, Fair, Loop, Prio, Scheduler, Steal

HERE = Path(__file__).resolve().parent / "image"
SUITES = HERE.parents[2] / "unikit/testing"
PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]


@component
class Table(Allocator):
    """An image's allocator that leaves each object its own table (``image/table.c``)."""

    id = "alloc.table"
    sources = (str(HERE / "table.c"), *map(str, Tlsf.source_files()))


class VirtualPlan(Plan):
    """A plan whose image also serves virtual environments, on which nothing can boot."""

    def note(self) -> dict[str, Any]:
        """Name only what the image boots on."""
        return {**super().note(), "entries": list(self.entries[:-1])}


def virtual(image: Image) -> Image:
    """Let the components of an image work on the suites' virtual environment, too."""
    fields = {field.name: getattr(image.plan, field.name) for field in dataclasses.fields(Plan)}
    fields["entries"] += ("virtual",)
    fields["entry_sources"] += (HERE / "virtual_entry.c",)
    image.__dict__["plan"] = VirtualPlan(**fields)
    return image


def suite(record: Component, name: str, sources: Sequence[str], flags: Sequence[str] = (),
          **choices: Any) -> Image:
    """Compose the application ``image/NAME.c`` with files of ``unikit/testing``.

    The same image boots on every platform: the second one finds it in the cache.
    """
    options = ", ".join(f"UINT64_C({value})" for value in record.encoded()) or "0"
    return Image("suite", [HERE / f"{name}.c", *(SUITES / each for each in sources)],
                 flags=[f"-DOPTIONS={options}", *flags], **choices)


def conforms(image: Image, platform: str, memory: str, checks: int) -> None:
    """Boot it: every check must hold, and there must have been that many at least."""
    with image.boot(platform, memory=memory) as machine:
        code = machine.wait(30)
        text = machine.console.text
    assert code == 0, text[-4000:]
    counted = re.search(r"(\d+) tests, (\d+) checks, result 0", text)
    assert counted, text[-4000:]
    assert int(counted[2]) >= checks


# The suites' own allocators and clocks are reached by their tables; only the subject is direct.
_TABLES = ("-UKIT_SOLE_ALLOC", "-UKIT_ENV_DIRECT")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", [Loop(), Coop(), Prio(), Edf(), Fair(), Steal()],
                         ids=lambda record: record.id)
def test_schedulers_conform_in_an_image(record: Scheduler, platform: str) -> None:
    """Work, timers, tasks, stacks and ``sched/sync.c``, with real guard pages where they are."""
    image = suite(record, "sched", ["virtual.c", *sorted(
        path.name for path in SUITES.glob("suite_sched*.c"))], _TABLES,
        alloc=Table(), sched=record,
        needs=[] if isinstance(record, Loop) else ["sched:threads"])
    conforms(virtual(image), platform, "32M", 1000)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_stack_conforms_in_an_image(platform: str) -> None:
    """Two instances over a cable with faults: TCP, UDP, and many connections."""
    image = suite(Mini(), "net", ["virtual.c", "wire.c", "suite_net.c", "suite_net_tcp.c",
                                  "suite_net_udp.c", "suite_net_faults.c"], _TABLES,
                  alloc=Table(), net=Mini(), netif=Loopback())
    conforms(virtual(image), platform, "16M", 10_000)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", [Loopback(), Pipe(slots=2)],
                         ids=lambda record: record.id)
def test_interfaces_conform_in_an_image(record: Interface, platform: str) -> None:
    """Frames in memory, as the image's stack uses them."""
    image = suite(record, "netif", ["suite_netif.c"], net=Mini(), netif=record)
    conforms(image, platform, "8M", 100)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", [
    Platform(), Null(), Tee(), Buffer(size=256), Syslog(server="10.0.0.9", backlog="1K")],
    ids=lambda record: record.id)
def test_consoles_conform_in_an_image(record: ConsoleComponent, platform: str) -> None:
    """Over the platform's own console, and for syslog over a stack."""
    network: dict[str, Any] = {}
    if isinstance(record, Syslog):
        network = {"net": Mini(address="10.0.0.2/24"), "netif": Loopback()}
    consoles = [Null(), record] if isinstance(record, Tee) else [record, Null()]
    image = suite(record, "console", ["suite_console.c"],
                  [f"-DSUBJECT={consoles.index(record)}"], console=consoles, **network)
    conforms(image, platform, "4M", 50)
