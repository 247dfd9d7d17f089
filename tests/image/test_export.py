"""Exported components: plain C that needs nothing of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit import registry
from unikit.errors import AlreadyExists, InvalidArgument
from unikit.image.export import export

PROGRAMS = {
    "alloc.tlsf": r"""
#include <stdio.h>
#include <unikit/alloc/alloc.h>
extern const struct kit_alloc_component kit_alloc_tlsf;
static _Alignas(64) char memory[1 << 16];
int main(void)
{
    struct kit_alloc *a;
    const uint64_t options[8] = {0};
    if (kit_alloc_tlsf.open(options, memory, sizeof memory, &a))
        return 1;
    char *text = kit_alloc_alloc(a, 100, 16);
    if (!text)
        return 2;
    snprintf(text, 100, "block of %d\n", 100);
    fputs(text, stdout);
    kit_alloc_free(a, text, 100, 16);
    return kit_alloc_check(a) ? 3 : 0;
}
""",
    "sched.loop": r"""
#include <stdio.h>
#include <stdlib.h>
#include <unikit/sched/sched.h>
extern const struct kit_sched_component kit_sched_loop;
static uint64_t now = 5;
static uint64_t clock_ns(runtime_environment_t *env) { (void)env; return now; }
static void *give(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a;
    (void)align;
    return aligned_alloc(64, (size + 63) / 64 * 64);
}
static void take(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a;
    (void)size;
    (void)align;
    free(block);
}
static void *grow(struct kit_alloc *a, void *block, size_t old, size_t size, size_t align)
{
    (void)a;
    (void)old;
    (void)align;
    return realloc(block, size);
}
static void ring(struct kit_timer *timer) { (void)timer; puts("ring"); }
int main(void)
{
    static const struct kit_alloc_ops ops = {.alloc = give, .free = take, .realloc = grow};
    struct kit_alloc alloc = {&ops};
    runtime_environment_t env = {.now_ns = clock_ns};
    struct kit_sched *s;
    const uint64_t options[8] = {0};
    if (kit_sched_loop.open(options, &env, &alloc, &s))
        return 1;
    struct kit_timer timer = {.run = ring};
    if (kit_sched_arm(s, &timer, 10) || kit_sched_turn(s))
        return 2;
    now = 10;
    if (!kit_sched_turn(s))
        return 3;
    kit_sched_close(s);
    return 0;
}
""",
    "netif.pipe": r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unikit/net/netif.h>
extern const struct kit_netif_component kit_netif_pipe;
int main(int argc, char **argv)
{
    (void)argc;
    uint64_t options[8];
    for (int i = 0; i < 8; i++)
        options[i] = argv[1] && i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;
    size_t size = kit_netif_pipe.memory_size(options);
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    network_interface_t *ends[2];
    if (!size || kit_netif_pipe.open(options, memory, size, ends))
        return 1;
    char frame[60] = "frame", copy[60];
    if (kit_netif_send(ends[0], frame, sizeof frame) ||
        kit_netif_receive(ends[1], copy, sizeof copy) != 60)
        return 2;
    puts(copy);
    free(memory);
    return 0;
}
""",
    "net.mini": r"""
#include <stdio.h>
#include <unikit/net/net.h>
extern const struct kit_net_component kit_net_mini;
int main(void)
{
    printf("%s, interface %u\n", kit_net_mini.id, kit_net_mini.abi);
    return kit_net_mini.abi != KIT_NET_ABI || !(kit_net_mini.features & KIT_NET_TCP);
}
""",
    "console.buffer": r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unikit/platform/console/console.h>
extern const struct kit_console_component kit_console_buffer;
static size_t show(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    return fwrite(data, 1, length, stdout);
}
static size_t none(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    (void)buffer;
    (void)max_length;
    return 0;
}
static _Alignas(64) char memory[1 << 16];
static size_t used;
static void *give(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a;
    (void)align;
    void *block = memory + used;
    used += (size + 63) / 64 * 64;
    return used <= sizeof memory ? block : NULL;
}
int main(int argc, char **argv)
{
    static const struct kit_alloc_ops ops = {.alloc = give};
    struct kit_alloc alloc = {&ops};
    console_interface_t screen = {show, none}, *console;
    runtime_environment_t env = {.console = &screen};
    struct kit_console_parts parts = {.env = &env, .alloc = &alloc};
    uint64_t options[8] = {0};
    char text[64] = "";
    for (int i = 1; i < argc && i <= 8; i++)
        options[i - 1] = strtoull(argv[i], NULL, 0);
    if (kit_console_buffer.open(options, &parts, &console))
        return 1;
    if (kit_console_write(console, "kept\n", 5) != 5)
        return 2;
    (void)kit_console_input(console, text, sizeof text);
    if (!memmem(memory, used, "kept", 4))
        return 3;
    puts("kept");
    return 0;
}
""",
}
SAYS = {"console.buffer": "kept\n", "alloc.tlsf": "block of 100\n", "sched.loop": "ring\n",
        "netif.pipe": "frame\n", "net.mini": "net.mini, interface 1\n"}


STRICT = ("-Wall", "-Wextra", "-Werror")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize("flags", [(), SANITIZED], ids=["plain", "sanitized"])
@pytest.mark.parametrize("key", sorted(PROGRAMS))
def test_a_plain_c_program_uses_an_exported_component(key: str, flags: tuple[str, ...],
                                                      tmp_path: Path) -> None:
    """make, pkg-config and a C compiler are all that is needed, for each domain; no warning."""
    record = registry.find(key)
    folder = tmp_path / "out"
    export(record, folder)
    library = "unikit-" + key.replace(".", "-")
    words = " ".join(["-O2", *STRICT, *flags])
    made = subprocess.run(["make", "-s", "-C", str(folder), f"CFLAGS={words}"], check=False,
                          capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (tmp_path / "program.c").write_text(PROGRAMS[key])
    text = (folder / f"{library}.pc").read_text()
    assert f"-l{library}" in text
    subprocess.run(["cc", "-std=gnu11", *STRICT, *flags, str(tmp_path / "program.c"),
                    f"-I{folder}/include", f"-L{folder}", f"-l{library}", "-o",
                    str(tmp_path / "program")], check=True)
    values = [str(value) for value in record().encoded()]
    done = subprocess.run([str(tmp_path / "program"), *values], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == SAYS[key]


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    """Exporting never overwrites."""
    (tmp_path / "mine.c").write_text("mine")
    with pytest.raises(AlreadyExists, match="has something in it"):
        export(registry.find("alloc.tlsf"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.c"]


def test_host_components_cannot_be_exported(tmp_path: Path) -> None:
    """A TAP opener is no freestanding C."""
    with pytest.raises(InvalidArgument, match=r"netif\.tap"):
        export(registry.find("netif.tap"), tmp_path / "out")
