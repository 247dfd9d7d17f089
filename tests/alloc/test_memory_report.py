"""What the kernel really gave a process, mapping by mapping."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unikit.alloc import memory
from unikit.errors import NoPermission, NotFound

pytestmark = pytest.mark.fast


def test_touched_memory_is_resident() -> None:
    """Before the first touch nothing is there, afterwards all of it."""
    size = 3 << 20

    def resident() -> int:
        return sum(each.resident for each in memory.report())

    with memory.region(size, hugepages="never") as region:
        before = resident()
        region[:] = b"x" * size
        assert resident() - before >= size * 9 // 10


def test_another_process_is_reported_with_its_files() -> None:
    """Names and permissions are those of the kernel."""
    child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"up\n"
        found = memory.report(child.pid)
    finally:
        child.communicate(b"\n")
    assert any(each.name == "[stack]" for each in found)
    assert any("x" in each.permissions and each.name.startswith("/") for each in found)
    assert found == sorted(found, key=lambda each: each.start)
    assert all(each.huge <= each.size for each in found)


def test_no_such_process_is_said() -> None:
    """One clear error, not the library's."""
    with pytest.raises(NotFound, match="no process 4194999"):
        memory.report(4194999)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_process_of_somebody_else_is_refused() -> None:
    """The remedy is named."""
    code = ("import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "from unikit.alloc import memory\n"
            "try: memory.report(1)\n"
            "except Exception as error: print(type(error).__name__, error)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip("the checkout cannot be read by others")
    assert done.stdout.startswith(NoPermission.__name__), done.stdout + done.stderr
