"""Run an application as a process with sanitizers over :file:`fake_app.c`."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from unikit import apps

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=gnu11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
         "-Wall", "-Wextra", "-Werror", "-fno-builtin")


def build(name: str, folder: Path) -> Path:
    """Compile a bundled application with the fake behind it; the program."""
    program = folder / name
    sources = [*apps.find(name).source_files(), ROOT / "tests/apps/fake_app.c",
               ROOT / "unikit/rt/format.c", ROOT / "unikit/image/runtime/files.c"]
    subprocess.run(["gcc", *FLAGS, f"-I{ROOT}", "-o", program, *sources], check=True)
    return program


class Fake:
    """A running application; every call is one command of :file:`fake_app.c`."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def _do(self, data: bytes) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            self._died()

    def _died(self) -> None:
        raise AssertionError(f"the application died: {self.process.communicate()[1].decode()}")

    def _take(self, count: int) -> bytes:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.flush()
        except BrokenPipeError:
            self._died()
        data = self.process.stdout.read(count)
        if len(data) < count:
            self._died()
        return data

    def connect(self, i: int = 0) -> None:
        """Open connection ``i``, forgetting what it was before."""
        self._do(bytes([ord("C"), i]))

    def data(self, data: bytes, i: int = 0) -> None:
        """Let one piece arrive."""
        self._do(bytes([ord("D"), i]) + struct.pack("<I", len(data)) + data)

    def fin(self, i: int = 0) -> None:
        """Let the peer end its stream."""
        self._do(bytes([ord("F"), i]))

    def reset(self, i: int = 0) -> None:
        """Let the peer reset."""
        self._do(bytes([ord("R"), i]))

    def window(self, size: int, i: int = 0) -> None:
        """Set how much the application may send from now on."""
        self._do(bytes([ord("W"), i]) + struct.pack("<I", size))

    def pass_ms(self, count: int) -> None:
        """Let time pass, timers included."""
        self._do(b"T" + struct.pack("<I", count))

    def out(self, i: int = 0) -> tuple[str, bytes]:
        """Return the connection's state and what was sent since last asked."""
        self._do(bytes([ord("O"), i]))
        head = self._take(5)
        return chr(head[0]), self._take(struct.unpack("<I", head[1:])[0])

    def datagram(self, data: bytes) -> bytes:
        """Send a datagram and return the reply, empty if there is none."""
        self._do(b"U" + struct.pack("<I", len(data)) + data)
        return self._take(struct.unpack("<I", self._take(4))[0])

    def close(self) -> None:
        """End the program; fails if a sanitizer has something to say, leaks included."""
        assert self.process.stdin
        self.process.stdin.close()
        code = self.process.wait(10)
        assert self.process.stderr and self.process.stdout
        said = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.process.stdout.close()
        assert code == 0, said
