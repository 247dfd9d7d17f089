"""Write a plan as C: one readable ``composition.c``, the packed files and the plan's note.

Pure text: nothing is compiled or run here. What ``composition.c`` must define stands in
``image/runtime/composition.h``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from unikit.component import Component, Option
from unikit.image.plan import Plan

_ENVIRONMENT = (
    ("void", "panic_handler", "runtime_environment_t *env, const char *message", "env, message"),
    ("uint64_t", "now_ns", "runtime_environment_t *env", "env"),
    ("uint64_t", "wall_ns", "runtime_environment_t *env", "env"),
    ("int", "entropy", "runtime_environment_t *env, void *buffer, size_t size",
     "env, buffer, size"),
    ("uint32_t", "wait", "runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake",
     "env, deadline_ns, wake"),
    ("int", "page_release", "runtime_environment_t *env, void *base, size_t size",
     "env, base, size"),
    ("int", "page_protect", "runtime_environment_t *env, void *base, size_t size, uint32_t access",
     "env, base, size, access"),
    ("int", "cpu_start", "runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument), "
     "void *argument, void *stack_top", "env, cpu, entry, argument, stack_top"),
    ("void", "cpu_wake", "runtime_environment_t *env, uint32_t cpu", "env, cpu"),
    ("struct kit_cpu *", "cpu_self", "runtime_environment_t *env", "env"),
    ("int", "cpu_slice", "runtime_environment_t *env, uint64_t stop_ns", "env, stop_ns"),
    ("const char *", "boot_option", "runtime_environment_t *env, const char *name", "env, name"),
    ("void", "exit", "runtime_environment_t *env, int32_t code", "env, code"),
    ("uint64_t", "cpu_features", "runtime_environment_t *env", "env"),
)
"""Calls of ``platform/env.h``: result, name, parameters, arguments."""
_CONSOLE = (
    ("size_t", "console_write", "console_interface_t *console, const char *data, size_t length",
     "console, data, length"),
    ("size_t", "console_read", "console_interface_t *console, char *buffer, size_t max_length",
     "console, buffer, max_length"),
)
_NETWORK = (
    ("int", "send_packet", "network_interface_t *network, const void *data, size_t length",
     "network, data, length"),
    ("int", "receive_packet", "network_interface_t *network, void *buffer, size_t max_length",
     "network, buffer, max_length"),
    ("int", "configure", "network_interface_t *network, const char *ip, const char *netmask",
     "network, ip, netmask"),
    ("int", "send_batch", "network_interface_t *network, const struct kit_frame *frames, "
     "size_t count", "network, frames, count"),
    ("int", "receive_batch", "network_interface_t *network, struct kit_frame *frames, "
     "size_t count", "network, frames, count"),
)
_KINDS = {"int": "INT", "size": "SIZE", "duration": "DURATION", "bool": "BOOL", "choice": "CHOICE",
          "address": "ADDRESS", "prefix": "PREFIX"}


def text(value: str) -> str:
    """Return a string as a C literal."""
    out = []
    for byte in value.encode():
        letter = chr(byte)
        if letter in '"\\':
            out.append("\\" + letter)
        elif letter == "?":
            out.append("\\?")  # no trigraphs
        elif 32 <= byte < 127:
            out.append(letter)
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


class _Emitter:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.out: list[str] = []
        self.boot: list[str] = []

    def array(self, name: str, owner: str, options: Sequence[Option], values: Sequence[Any]) -> str:
        """Define an options array; boot options make it writable and go on the list."""
        pairs = [(spec, value) for spec, value in zip(options, values, strict=True)
                 if spec.reaches_c]
        if not pairs:
            return "NULL"
        const = "" if any(spec.when == "boot" for spec, _ in pairs) else "const "
        self.out.append(f"static {const}uint64_t {name}[] = {{")
        for position, (spec, value) in enumerate(pairs):
            self.out.append(f"    UINT64_C({spec.encode(value)}), /* {spec.name} = "
                            f"{str(value).replace('*/', '* /')} */")
            if spec.when == "boot":
                self.boot_option(f"{owner}.{spec.name}", spec, f"&{name}[{position}]")
        self.out.append("};")
        return name

    def boot_option(self, name: str, spec: Option, place: str) -> None:
        choices = "NULL"
        if spec.kind == "choice":
            choices = f"choices_{len(self.boot)}"
            listed = ", ".join([*map(text, spec.choices), "NULL"])
            self.out.insert(0, f"static const char *const {choices}[] = {{{listed}}};")
        low = spec.minimum or 0
        high = f"UINT64_C({spec.maximum})" if spec.maximum is not None else "UINT64_MAX"
        self.boot.append(f"    {{{text(name)}, {text(spec.allowed())}, {place}, {choices}, "
                         f"UINT64_C({low}), {high}, KIT_OPTION_{_KINDS[spec.kind]}}},")

    def component(self, part: Component, name: str) -> str:
        values = [getattr(part, spec.name) for spec in part.options]
        self.out.append(f"extern const struct kit_{part.domain()}_component {part.symbol()};")
        return self.array(f"{name}_options", part.id, part.options, values)

    def table(self, kind: str, name: str, rows: Iterable[str]) -> str:
        rows = list(rows)
        if not rows:
            return "NULL"
        self.out += [f"static const {kind} {name}[] = {{", *rows, "};"]
        return name

    def environment(self) -> None:
        """Define the calls of the environment over the image's platforms (``KIT_ENV_DIRECT``)."""
        self.out += [f"KIT_ENV_DECLARE({entry});" for entry in self.plan.entries]
        calls = [(call, "env") for call in _ENVIRONMENT]
        if not self.plan.consoles:
            calls += [(call, "kit_runtime.state.runtime") for call in _CONSOLE]
        if self.plan.direct():
            calls += [(call, "kit_runtime.state.runtime") for call in _NETWORK]
        if self.plan.cpus > 1:
            self.out.append(f"const uint32_t kit_image_cpus = {self.plan.cpus};")
        for (result, name, parameters, arguments), env in calls:
            if name == "cpu_self" and self.plan.cpus > 1:  # the same on every platform
                self.out += [f"{result}kit_image_{name}({parameters})", "{", "    (void)env;",
                             "    return kit_cpu_here();", "}"]
                continue
            do = "" if result == "void" else "return "
            self.out += [f"{result} kit_image_{name}({parameters})", "{"]
            for entry in self.plan.entries[:-1]:
                self.out += [f"    if ({env}->platform == kit_{entry}_name) {{",
                             f"        {do}kit_{entry}_{name}({arguments});",
                             *(["        return;"] if not do else []), "    }"]
            self.out += [f"    {do}kit_{self.plan.entries[-1]}_{name}({arguments});", "}"]

    def emit(self) -> str:
        plan = self.plan
        fields = [f"    .name = {text(plan.name)},"]
        chain = [f"    {{&{each.symbol()}, {self.component(each, f'alloc_{index}')}}},"
                 for index, each in enumerate(plan.allocators())]
        fields += [f"    .alloc = {self.table('struct kit_alloc_choice', 'alloc_table', chain)},",
                   f"    .alloc_count = {len(chain)},"]
        for domain in ("sched", "net", "netif"):
            part: Component | None = getattr(plan, domain)
            if part is not None:
                options = self.component(part, domain)
                fields += [f"    .{domain} = &{part.symbol()},",
                           f"    .{domain}_options = {options},"]
        consoles = [f"    {{&{each.symbol()}, {self.component(each, f'console_{index}')}}},"
                    for index, each in enumerate(plan.consoles)]
        app_array = self.array("app_options_values", f"app.{plan.name}",
                               [each.spec for each in plan.app_options],
                               [each.value for each in plan.app_options])
        numbered = [each for each in plan.app_options if each.spec.reaches_c]
        app_rows = [f"    {{{text(each.spec.name)}, &{app_array}[{index}]}},"
                    for index, each in enumerate(numbered)]
        files = []
        for index, file in enumerate(plan.files):
            self.out.append(f"extern const char kit_file_{index}[];")
            files.append(f"    {{{text(file.path)}, {text(file.media_type)}, kit_file_{index}, "
                         f"{file.size}, UINT64_C({file.digest()})}},")
        ids = sorted([*(part.id for part in plan.components()),
                      *(f"platform.{entry}" for entry in plan.entries)])
        self.out.append("static const char *const component_ids[] = {"
                        + ", ".join([*map(text, ids), "NULL"]) + "};")
        fields.append("    .components = component_ids,")
        for name, kind, rows, count in (
                ("consoles", "struct kit_console_choice", consoles, "console_count"),
                ("boot_options", "struct kit_boot_option", self.boot, "boot_option_count"),
                ("app_options", "struct kit_app_option", app_rows, "app_option_count"),
                ("files", "struct kit_file", files, "file_count")):
            fields += [f"    .{name} = {self.table(kind, name + '_table', rows)},",
                       f"    .{count} = {len(rows)},"]
        self.environment()
        head = ["/* Made by unikit: what this image is composed of. */",
                "#include <unikit/image/runtime/composition.h>",
                "#include <unikit/image/runtime/runtime.h>", ""]
        return "\n".join([*head, *self.out, "", "const struct kit_composition kit_composition = {",
                          *fields, "};", ""])


def composition(plan: Plan) -> str:
    """Return ``composition.c`` for a plan."""
    return _Emitter(plan).emit()


def _asm(value: str) -> str:
    return '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\{byte:03o}"
                         for byte in value.encode()) + '"'


def data(plan: Plan) -> str:
    """Return ``data.S`` for a plan: packed files as they are, and the plan's note.

    The digest of each file stands beside it, so that the text changes when a file does.
    """
    note = plan.json()
    lines = ["/* Made by unikit: packed files and the plan of this image. */",
             '    .section .note.unikit, "", @note', "    .balign 4",
             f"    .long 7, {len(note.encode())}, 2", '    .asciz "unikit"', "    .balign 4",
             f"    .ascii {_asm(note)}", "    .balign 4"]
    for index, file in enumerate(plan.files):
        digest = hashlib.sha256(file.source.read_bytes()).hexdigest()
        lines += [f"/* {digest} */", f'    .section .rodata.kit_file_{index}, "a", @progbits',
                  "    .balign 16", f"    .globl kit_file_{index}", f"kit_file_{index}:",
                  f"    .incbin {_asm(str(file.source))}"]
    return "\n".join([*lines, '    .section .note.GNU-stack, "", @progbits', ""])
