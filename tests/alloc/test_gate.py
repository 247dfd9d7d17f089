"""Gates under sanitizers: locks and faces for threads, forks, threads that outlive the gate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit import get_include
from unikit.alloc import Shard, Tlsf

ROOT = Path(get_include())
SOURCES = [Path(__file__).with_name("gate_threads.c"), ROOT / "unikit/alloc/host_gate.c",
           ROOT / "unikit/alloc/host_shared.c", ROOT / "unikit/rt/host.c",
           *Shard.source_files(), *Tlsf.source_files()]


@pytest.mark.parametrize(("sanitizer", "forks"), [("thread", 0), ("address,undefined", 5)])
def test_threads_at_gates_under_sanitizers(sanitizer: str, forks: int, tmp_path: Path) -> None:
    """No race, no lock left, no use of what is gone; forks while threads are inside."""
    built = subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-g", "-D_GNU_SOURCE", f"-fsanitize={sanitizer}",
         "-fno-sanitize-recover=all", f"-I{ROOT}", *SOURCES, "-pthread", "-o", tmp_path / "gate"],
        capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no -fsanitize={sanitizer}")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "gate", str(forks)], capture_output=True, text=True,
                          check=False, timeout=120)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not know this kernel's address space")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr[-4000:]
