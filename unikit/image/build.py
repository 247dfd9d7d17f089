"""Make an image from a plan: emit, compile, link; or find it in the cache."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from unikit import cache
from unikit.errors import CompositionError, ToolchainError
from unikit.image import emit, toolchain
from unikit.image.plan import Plan
from unikit.image.runtime import lacking
from unikit.image.runtime import sources as runtime_sources

SCRIPT = toolchain.ROOT / "unikit/platform/x86/image.ld"
# Short functions of the runtime that belong into their callers; only functions of the same target
# options are inlined, and the callers are applications.
_INLINED = ("memory.c",)
_UNDEFINED = re.compile(r"undefined reference to `([^']+)'")
# What image.ld says when an application has some: known only when unused ones are gone.
_TLS = "this image has thread-local variables"
_DOUBLE = re.compile(r"multiple definition of `([^']+)'")


def cached(plan: Plan) -> Path:
    """Return the image of a plan, built now unless it was built before.

    :raises CompositionError: the application calls what its plan lacks.
    :raises ToolchainError: a compiler is missing or failed.
    """
    folder = cache.folder() / "images" / _fingerprint(plan)
    target = folder / f"{plan.name}.elf"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(plan, folder, target)
        cache.prune("images", keep=512)
        cache.prune("objects", keep=8192)
    return target


def _fingerprint(plan: Plan) -> str:
    """Return a name for everything an image is made from; files by path, size and time."""
    digest = hashlib.sha256()

    def add(*words: object) -> None:
        digest.update("\0".join(map(str, words)).encode() + b"\1")

    add(toolchain.identity(), plan.json(), *plan.lines(), *plan.flags)
    for part in plan.components():
        add(part.id, part.size_first, *part.encoded())
    folders = {toolchain.ROOT / "unikit", *(path.parent for path in plan.sources)}
    paths = {path for folder in folders for path in folder.rglob("*")
             if path.suffix in (".c", ".h", ".S", ".ld", ".cc", ".o", ".a")}
    paths |= {path for part in plan.components() for path in part.source_files()}
    for path in sorted(paths | {file.source for file in plan.files}):
        stat = path.stat()
        add(path, stat.st_size, stat.st_mtime_ns)
    return digest.hexdigest()[:32]


def _make(plan: Plan, folder: Path, target: Path) -> None:
    """Emit, compile and link a plan."""
    (folder / "composition.c").write_text(emit.composition(plan))
    (folder / "data.S").write_text(emit.data(plan))
    try:
        _link(plan, folder, target)
    except ToolchainError as error:
        problems = _missing(plan, error.stderr)
        if problems:
            raise CompositionError(problems) from error
        raise


def _link(plan: Plan, folder: Path, target: Path) -> None:
    """Compile and link; for thread-local variables once more if it turns out that there are any."""
    script = folder / SCRIPT.name
    for tls in (False, True):
        script.write_text(_script(plan, tls))
        try:
            objects = toolchain.compile_all(_units(plan, folder, tls), plan.optimise)
            toolchain.link(objects, script, target, plan.optimise)
            return
        except ToolchainError as error:
            if tls or _TLS not in error.stderr:
                raise


def _script(plan: Plan, tls: bool) -> str:
    """Return the linker script for the entries of a plan."""
    left_out = {"/* no tls */" if tls else "/* tls */"}
    if "pvh" not in plan.entries:
        left_out.add("/* pvh */")
    lines = SCRIPT.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not any(mark in line for mark in left_out))


def _units(plan: Plan, folder: Path, tls: bool) -> list[toolchain.Unit]:
    """Return what to compile: components for speed, what runs once for size."""
    root = toolchain.ROOT / "unikit"
    one = len(plan.allocators()) == 1 and not plan.faces()
    sole = (plan.alloc if one else None, plan.sched, plan.net)
    defines = tuple(f"KIT_SOLE_{part.domain().upper()}={part.symbol()}"
                    for part in sole if part is not None)
    layers = len(plan.allocators()) > 1
    defines += (f"KIT_WITH_NETWORK={int(plan.device())}", f"KIT_WITH_LAYERS={int(layers)}",
                f"KIT_WITH_CPUS={int(plan.cpus > 1)}", f"KIT_WITH_FACES={int(plan.faces())}",
                f"KIT_WITH_PREEMPTION={int(plan.preempt)}", f"KIT_WITH_TLS={int(tls)}",
                "KIT_ENV_DIRECT")
    if plan.direct():
        defines += ("KIT_NETIF_DIRECT",)
    if not plan.consoles:
        defines += ("KIT_CONSOLE_DIRECT",)
    once = "size" if plan.optimise == "speed" else ""

    def unit(path: Path, **more: Any) -> toolchain.Unit:
        return toolchain.Unit(path, defines, lto=path.suffix in (".c", ".cc", ".cpp"), **more)

    units = [unit(path, optimise="" if path.name in _INLINED else once,
                  application=path.name in _INLINED) for path in (
        *runtime_sources(events=plan.sched is not None, net=plan.net is not None,
                         threads=plan.threads(), layers=layers, cpus=plan.cpus > 1,
                         preempt=plan.preempt, tls=tls),
        root / "rt/format.c", root / "platform/x86/generator.c", *plan.entry_sources,
        folder / "composition.c")]
    # An application that asks for -Os says that its processor time is spent elsewhere; then that of
    # its scheduler is, too. The allocator keeps its speed: -Os costs it a sixth more instructions.
    small = {part.id for part in plan.components() if part.size_first}
    if plan.sched is not None and "-Os" in plan.flags:
        small.add(plan.sched.id)
    units += [unit(path, includes=(part.folder(),), optimise=once if part.id in small else "")
              for part in plan.components() for path in part.source_files()]
    if plan.threads():
        units.append(unit(root / "sched/sync.c"))
    if plan.preempt:
        units.append(unit(root / "rt/x86_64/upcall.S"))
    units += [toolchain.Unit(path, lto=False) for path in (
        root / "rt/string.c", root / "image/runtime/stack_protector.c", folder / "data.S")]
    own = (f"-DKIT_APPLICATION={int(plan.preempt)}",)
    units += [unit(path, application=True, includes=(path.parent,), flags=(*own, *plan.flags))
              for path in plan.sources]
    return list({each.source: each for each in units}.values())


def _missing(plan: Plan, stderr: str) -> list[str]:
    """Turn undefined symbols into what the composition lacks."""
    problems = []
    for symbol in dict.fromkeys(_UNDEFINED.findall(stderr)):
        said = lacking(symbol)
        if said:
            problems.append(f"{plan.name} calls {symbol}(), which needs {said[0]}; "
                            f"compose it with {said[1]}")
        elif symbol == "init_application":
            problems.append(f"{plan.name} does not define init_application() (unikit/app.h)")
        else:
            problems.append(f"{plan.name} calls {symbol}(), which nothing in the image defines")
    problems += [f"{symbol} is defined twice in the image; rename it in {plan.name}, or make it "
                 "static" for symbol in dict.fromkeys(_DOUBLE.findall(stderr))]
    return problems
