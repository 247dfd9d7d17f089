"""All consoles against their conformance suite, hosted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit.platform.console import Buffer, ConsoleComponent, Null, Platform, Syslog, Tee
from unikit.testing import NotConforming, check_console

pytestmark = pytest.mark.fast


def test_every_console_conforms_and_keeps_its_own_promises(console_program: Path) -> None:
    """The suite that third parties run too, then tee, syslog and their like in detail."""
    done = subprocess.run([console_program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


@pytest.mark.parametrize("record", [
    Platform(), Null(), Tee(), Buffer(), Buffer(size=256), Syslog(server="127.0.0.1"),
    Syslog(server="127.0.0.1", backlog="1K")], ids=repr)
def test_conformance_in_this_process(record: ConsoleComponent) -> None:
    """The same suite over the components' extensions, with a real allocator and a real stack."""
    assert check_console(record).checks > 100


def test_a_console_that_is_not_set_up_says_so() -> None:
    """A syslog without server is refused by the suite, not passed over."""
    with pytest.raises(NotConforming, match="-2"):
        check_console(Syslog)
