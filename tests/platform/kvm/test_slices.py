"""Ends of slices on platform.kvm: ``due``, then the upcall; of guests that mean no good, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unikit.platform.api import Machine

pytestmark = pytest.mark.kvm
Boot = Callable[..., Machine]


def test_upcalls_come_and_keep_registers(boot: Boot) -> None:
    """A guest that computes is redirected again and again, and its sum is right."""
    machine = boot("upcalls 20")
    assert machine.wait(20) == 0
    assert "sum right" in machine.console.text
    assert machine.stats()["upcalls"] >= 20
    assert machine.stats()["exits_slice"] == 1


def test_without_slices_nobody_looks(boot: Boot) -> None:
    """A guest that never asks has no thread for it and takes no upcall."""
    machine = boot("clock")
    assert machine.wait(20) == 0
    assert machine.stats()["upcalls"] == machine.stats()["exits_slice"] == 0


@pytest.mark.parametrize(("upcall", "stack"), [
    (0, 0), (0xff000, 0), (2**63, 0), (2**64 - 1, 0),  # nowhere, doorbell, beyond
    (1, 1), (1, 0xff090), (1, 2**63), (1, 2**64 - 1), (1, 144), (1, 0x100400)],  # text: read-only
    ids=hex)
def test_hostile_words(boot: Boot, upcall: int, stack: int) -> None:
    """Where a guest cannot go or write itself the monitor does not do it in its stead."""
    machine = boot(f"upcall-wild {upcall} {stack}")
    assert machine.wait(20) == 0
    assert "upcalls 0 due 1" in machine.console.text
