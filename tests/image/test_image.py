"""Whole images: what is in them, what is not, and that the same wish gives the same bytes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from unikit.errors import CompositionError, ImageError, ToolchainError
from unikit.image import Image, elf, sizes, toolchain

HELLO_MAX = 8 << 10
"""Bytes the stripped hello image may have (docs/performance)."""
HTTP_MAX = 53_300
"""What http has reached, and 2 %; the claim of benchmarks/bench_size.py is 48 KiB."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache folder of its own."""
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "cache"))
    for cached in (toolchain.compiler, toolchain.identity, toolchain._builtin_includes,
                   toolchain._tool):
        cached.cache_clear()
    return tmp_path / "cache"


def app(tmp_path: Path, text: str, name: str = "main.c") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "most"), [("hello", HELLO_MAX), ("http", HTTP_MAX)])
def test_images_are_small(name: str, most: int) -> None:
    """The promise of a unikernel: nothing in the image that it does not use."""
    path = Image(name, platforms=("kvm", "linux")).build()
    assert path.stat().st_size <= most


@pytest.mark.kvm
def test_hello_runs_in_little_memory() -> None:
    """128 KiB hold image, page tables, rings, stack and heap."""
    with Image("hello").boot("kvm", memory="128K") as machine:
        assert machine.wait(5) == 0


def test_only_what_is_used_is_linked(tmp_path: Path) -> None:
    """An allocator op that nobody calls is not in the image, the one that is called is."""
    source = app(tmp_path, """
#include <unikit/app.h>
int init_application(void)
{
    void *block = kit_memory_alloc(100, 16);
    kit_memory_free(block, 100, 16);
    kit_exit(0);
}
""")
    path = Image("probe", [source], platforms=("linux",)).build()
    names = {name for _, _, name in elf.symbols(Path(f"{path}.debug"))}
    assert not {name for name in names if re.search(r"tlsf_(walk|check|owns|stats)", name)}
    assert not {name for name in names if name.startswith(("mini_", "coop_", "firstfit_"))}


def test_an_image_without_events_has_no_main_loop(tmp_path: Path) -> None:
    """No scheduler and no clock; a timer in it is told what it lacks."""
    text = "#include <unikit/app.h>\nint init_application(void) { return 0; }\n"
    path = Image("probe", [app(tmp_path, text)], events=False).build()
    names = {name for _, _, name in elf.symbols(Path(f"{path}.debug"))}
    assert not {name for name in names if re.search(r"(loop|events|timer)_|now_ns|_wait", name)}
    source = app(tmp_path, text.replace("return 0", "struct kit_timer t; "
                                        "return kit_timer_start(&t, 1)"))
    with pytest.raises(CompositionError, match=r"kit_timer_start\(\).*needs a scheduler"):
        Image("probe", [source], events=False).build()


def disassembled(path: Path, function: str) -> list[str]:
    """Return the instructions of one function of an image."""
    start, size = next((address, size) for address, size, name
                       in elf.symbols(Path(f"{path}.debug")) if name.startswith(function))
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", f"--start-address={start}",
         f"--stop-address={start + size}", str(path)], check=True, capture_output=True,
        text=True).stdout
    body = [line for line in code.splitlines() if re.match(r"\s+[0-9a-f]+:", line)]
    assert body
    return body


@pytest.mark.parametrize("optimise", ["speed", "size"])
def test_small_constant_copies_are_moves(tmp_path: Path, optimise: str) -> None:
    """A call would cost more than the copy: -ffreestanding alone would make one."""
    source = app(tmp_path, """
#include <unikit/app.h>
__attribute__((noinline, used)) uint64_t probe_target(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value + strlen("four");
}
int init_application(void)
{
    kit_exit(probe_target("12345678") == 0);
}
""")
    path = Image("probe", [source], platforms=("linux",), optimise=optimise).build()
    assert not [line for line in disassembled(path, "probe_target") if "call" in line]


def test_calls_of_a_sole_component_are_direct(tmp_path: Path) -> None:
    """With one allocator in the plan no call goes through a pointer to reach it."""
    source = app(tmp_path, """
#include <unikit/app.h>
__attribute__((noinline, used)) void *probe_target(size_t size)
{
    return kit_memory_alloc(size, 16);
}
int init_application(void)
{
    kit_exit(probe_target(64) == NULL);
}
""")
    path = Image("probe", [source], platforms=("linux",)).build()
    assert not [line for line in disassembled(path, "probe_target")
                if re.search(r"(call|jmp)\s+\*", line)]


def test_the_same_wish_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            ) -> None:
    """Two builds from nothing, in two caches, are equal to the last byte."""
    made = []
    for number in (1, 2):
        monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / f"cache{number}"))
        toolchain._builtin_includes.cache_clear()
        made.append(Image("hello").build().read_bytes())
    toolchain._builtin_includes.cache_clear()
    assert made[0] == made[1]


def test_a_second_build_is_found_in_the_cache(cache: Path) -> None:
    """Nothing is compiled twice; a changed option is another image."""
    first = Image("hello").build()
    before = first.stat().st_mtime_ns
    assert Image("hello").build() == first
    assert first.stat().st_mtime_ns == before
    assert Image("hello", alloc="bump").build() != first


def test_an_application_that_calls_what_it_lacks_is_told_so(tmp_path: Path) -> None:
    """An undefined symbol becomes words and a remedy."""
    source = app(tmp_path, """
#include <unikit/app.h>
int init_application(void)
{
    struct kit_tcp *listener;
    return kit_tcp_listen(80, NULL, NULL, &listener);
}
""")
    with pytest.raises(CompositionError, match=r"kit_tcp_listen\(\).*needs a network stack"):
        Image("probe", [source]).build()
    source = app(tmp_path, "int nothing;\n", "empty.c")
    with pytest.raises(CompositionError, match="does not define init_application"):
        Image("probe", [source]).build()


def test_a_compile_error_is_the_compilers_own(tmp_path: Path) -> None:
    """The person sees file, line and message as the compiler said them."""
    source = app(tmp_path, "int init_application(void) { return nonsense; }\n")
    with pytest.raises(ToolchainError) as caught:
        Image("probe", [source]).build()
    assert "nonsense" in caught.value.stderr
    assert caught.value.status


def test_a_missing_compiler_is_one_clear_error(cache: Path, monkeypatch: pytest.MonkeyPatch,
                                               ) -> None:
    """The message names what to install."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ToolchainError, match="no C compiler: 'no-such-compiler'.*apt-get install"):
        Image("hello").build()
    monkeypatch.delenv("CC")
    toolchain.compiler.cache_clear()


def test_the_plan_rides_in_the_image() -> None:
    """What was asked for can be read back from the file."""
    image = Image("hello", alloc="firstfit", settings={"alloc.firstfit.blocks": 64})
    found = elf.load(image.build())
    assert found.plan["components"]["alloc.firstfit"] == {"blocks": 64}
    assert set(found.entries) == {"kvm", "linux", "pvh"}


def test_sections_are_never_writable_and_executable() -> None:
    """W^X starts in the file."""
    found = elf.load(Image("hello").build())
    assert not [part for part in found.segments if part.writable and part.executable]


def test_code_sizes_are_attributed_to_components() -> None:
    """Inspect says where the bytes come from."""
    found = elf.load(Image("hello").build())
    owned = sizes.by_component(found)
    assert owned["alloc.tlsf"] > 100
    assert owned["platform.kvm"] > 100
    assert sum(owned.values()) <= sum(part.size for part in elf.sections(found.path)
                                      if part.kind == "text")


def test_output_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """Nothing is half written."""
    with pytest.raises(ImageError, match="no folder"):
        Image("hello").build(tmp_path / "none" / "hello.elf")


def test_cpp_and_floating_point_are_allowed_in_applications(tmp_path: Path) -> None:
    """An application may use vectors and another language; components may not."""
    helper = app(tmp_path, """
extern "C" double half(double value) { return value / 2; }
""", "half.cc")
    source = app(tmp_path, """
#include <unikit/app.h>
double half(double value);
int init_application(void)
{
    volatile double seven = 7.0;
    kit_exit((int)(half(seven) * 2));
}
""")
    path = Image("probe", [source, helper]).build()
    assert elf.load(path).entries


def test_a_name_that_a_component_has_already_is_told(tmp_path: Path) -> None:
    """The inner names of a component are visible to the linker; a clash becomes words."""
    source = app(tmp_path, """
#include <unikit/app.h>
const int kit_alloc_tlsf = 3;
int init_application(void) { return 0; }
""".replace("#include <unikit/app.h>", ""))
    with pytest.raises(CompositionError, match="kit_alloc_tlsf is defined twice"):
        Image("probe", [source]).build()
