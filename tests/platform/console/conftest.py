"""The consoles' program, and images that write to consoles."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WRITER = """
#include <unikit/app.h>
int init_application(void)
{
    char none[1];
    const char *argument = kit_boot_option("");
    kit_log("first line");
    kit_log("said %s", argument ? argument : "nothing");
    kit_console_read(none, 0); /* from now on input is an event */
    return 0;
}
void process_application_logic(void)
{
    char input[16];
    size_t got = kit_console_read(input, sizeof input);
    if (got != 0) {
        kit_log("heard %zu bytes", got);
        kit_exit(7);
    }
}
"""


HARNESSES = {
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "optimised": ["-O2"],
}


@pytest.fixture(scope="session", params=HARNESSES)
def console_program(request: pytest.FixtureRequest,
                    tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build console_program.c with all consoles, under sanitizers and as a release."""
    program = tmp_path_factory.mktemp("console") / "console"
    folder = ROOT / "unikit/platform/console"
    subprocess.run(
        ["gcc", "-std=gnu11", "-g", *HARNESSES[request.param], "-Wall", "-Wextra",
         "-Werror", f"-I{ROOT}", "-o", program,
         ROOT / "tests/platform/console/console_program.c", *sorted(folder.glob("*.c")),
         ROOT / "unikit/testing/suite_console.c", ROOT / "unikit/testing/virtual.c"], check=True)
    return program


@pytest.fixture
def writer(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that boots an image which writes two lines and ends after some input."""
    source = tmp_path / "main.c"
    source.write_text(WRITER)

    @contextmanager
    def boot(console: Any = (), args: str = "hello", **more: Any) -> Iterator[Any]:
        from unikit.image import Image
        image = Image("writer", [source], console=console, platforms=("linux",),
                      **{key: more.pop(key) for key in ("net", "settings") if key in more})
        with image.boot("linux", memory="2M", args=args, **more) as machine:
            yield machine

    return boot
