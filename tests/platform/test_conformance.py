"""Every registered platform that works here passes the suite that ships with the interface, and
the suite notices platforms that do not keep their contract."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from unikit import registry
from unikit.component import component
from unikit.errors import GuestExit
from unikit.platform.api import Machine, Platform, probe
from unikit.platform.linux import Linux
from unikit.platform.linux.machine import LinuxMachine
from unikit.testing import NotConforming, check_platform

PLATFORMS = [record for record in registry.components("platform")
             if issubclass(record, Platform) and record.entry]


@pytest.mark.parametrize("record", PLATFORMS, ids=lambda record: record.stem())
def test_platform_conforms(record: type[Platform]) -> None:
    """What applications may rely on is the same on every platform."""
    reason = probe(record)
    if reason is not None:
        pytest.skip(reason)
    outcome = check_platform(record)
    assert outcome.tests >= 20
    assert outcome.checks >= 100


class Wrong(LinuxMachine):
    """A machine with one thing wrong, chosen by ``flaw``."""

    flaw = ""

    def wait(self, timeout: float | None = None) -> int:
        try:
            code = super().wait(timeout)
        except GuestExit as error:
            if self.flaw == "silent panic":
                return 134
            if self.flaw == "no registers":
                error.registers.clear()
            raise
        if self.flaw == "codes":
            return code & 127
        if self.flaw == "late stop" and self._stopped_late:
            return 143
        return code

    _stopped_late = False

    def stop(self) -> None:
        if self.flaw == "slow stop" and self.running:
            time.sleep(2.1)
        self._stopped_late = True
        super().stop()

    def stats(self) -> dict[str, Any]:
        return {"list": []} if self.flaw == "statistics" else super().stats()

    def close(self) -> None:
        super().close()
        if self.flaw == "leak":
            os.open("/dev/null", os.O_RDONLY)


def flawed(flaw: str, boot: Callable[[dict[str, Any]], None] | None = None) -> type[Platform]:
    """Return a platform whose machines have this flaw, or whose boots are changed by ``boot``."""
    machine = type("Flawed", (Wrong,), {"flaw": flaw})

    @component
    class Bad(Linux):
        """A platform that does not keep its contract."""

        id = "platform.bad"

        def boot(self, image: Any, **more: Any) -> Machine:
            more["options"] = dict(more.get("options") or {})
            if boot:
                boot(more)
            return machine(image, **more)

    return Bad


def drop_option(more: dict[str, Any]) -> None:
    """Forget a boot option."""
    more["options"].pop("net.mini.address", None)


def squeeze(more: dict[str, Any]) -> None:
    """Squeeze blanks out of the argument string."""
    more["options"][""] = " ".join(more["options"][""].split())


def waste(more: dict[str, Any]) -> None:
    """Give the guest a quarter of its memory."""
    more["memory"] //= 4


def no_sink(more: dict[str, Any]) -> None:
    """Do not hand output on."""
    more.pop("sink", None)


def same_name(more: dict[str, Any]) -> None:
    """Call every machine the same."""
    more["name"] = "guest"


def enlarge(more: dict[str, Any]) -> None:
    """Give more memory than was asked for."""
    more["memory"] *= 2


@pytest.mark.parametrize(("only", "flaw", "boot"), [
    ("exit_codes", "codes", None), ("panic", "silent panic", None), ("panic", "no registers", None),
    ("faults", "silent panic", None), ("stop", "late stop", None), ("stop", "slow stop", None),
    ("statistics", "statistics", None), ("nothing_is_left", "leak", None),
    ("boot_options", "", drop_option), ("boot_options", "", squeeze), ("memory", "", waste),
    ("memory", "", enlarge), ("too_little_memory", "", lambda more: more.update(memory=1 << 20)),
    ("console_output", "", no_sink), ("names", "", same_name),
    ("network", "", lambda more: more.update(netif=None)),
])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_suite_notices(only: str, flaw: str, boot: Callable[[dict[str, Any]], None] | None) -> None:
    """A suite that passes everything is worth nothing."""
    with pytest.raises(NotConforming) as caught:
        check_platform(flawed(flaw, boot), only=[only])
    assert {failure.test for failure in caught.value.failures} == {only.replace("_", " ")}


def test_suite_says_where() -> None:
    """A failure names the behaviour, what was seen and the line that looked."""
    with pytest.raises(NotConforming) as caught:
        check_platform(flawed("codes"), only=["exit_codes"])
    first = caught.value.failures[0]
    assert dataclasses.astuple(first)[0] == "exit codes"
    assert first.what == "exit code is 6, not 134"
    assert first.line > 0
