"""``list``, ``new``, ``build`` and ``inspect``; and what the word TARGET means."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unikit import cache, registry
from unikit.cli.output import progress, table
from unikit.errors import CompositionError
from unikit.image import Image, elf
from unikit.platform.api import BootImage


def settings(words: list[str]) -> dict[str, str]:
    """Return ``--set`` words as a dict.

    :raises CompositionError: a word is not ``ID.OPTION=VALUE``; all of them are listed.
    """
    found, problems = {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key.count(".") < 1:
            problems.append(f"--set {word}: write ID.OPTION=VALUE, for example "
                            "alloc.tlsf.pool=8M")
        found[key] = value
    if problems:
        raise CompositionError(problems)
    return found


def is_file(target: str) -> bool:
    """Return whether TARGET names an ELF file rather than something to compose."""
    return target.endswith(".elf") or ("/" in target and Path(target).is_file())


def image(choice: argparse.Namespace, given: dict[str, str]) -> Image:
    """Return the image that TARGET and the component options describe."""
    named: dict[str, Any] = {name: value for name in ("alloc", "sched", "net")
                             if (value := getattr(choice, name, None)) is not None}
    if getattr(choice, "console", None):
        named["console"] = choice.console.split(",")
    if getattr(choice, "files", None):
        named["files"] = choice.files
    if getattr(choice, "platforms", None):
        named["platforms"] = choice.platforms.split(",")
    if getattr(choice, "optimise", None):
        named["optimise"] = choice.optimise
    if getattr(choice, "cpus", None) is not None:
        named["cpus"] = choice.cpus
    if getattr(choice, "preempt", None) is not None:
        named["preempt"] = {"on": True, "off": False}.get(choice.preempt, "auto")
    return Image(choice.target, settings=given, **named)


def do_list(choice: argparse.Namespace) -> int:
    """Print what can be composed here."""
    from unikit import apps
    records = registry.components(choice.domain)
    broken = registry.broken()
    applications = [] if choice.domain else list(apps.bundled())
    if choice.json:
        rows = [{"id": record.id, "summary": _summary(record), "side": record.side,
                 "features": sorted(record.features), "reference": record.reference,
                 "options": [{"name": spec.name, "kind": spec.kind, "default": spec.default,
                              "when": spec.when, "allowed": spec.allowed(), "doc": spec.doc}
                             for spec in record.options]} for record in records]
        print(json.dumps({"components": rows, "broken": broken, "applications": [
            {"name": app.name, "summary": app.summary} for app in applications]}, indent=2))
        return 0
    if choice.domain and not records:
        raise CompositionError([f"there is no component of the domain {choice.domain!r}; domains: "
                                + ", ".join(sorted({each.domain() for each in
                                                    registry.components()}))])
    lines: list[tuple[str, str, str]] = []
    for record in records:
        lines.append((record.id, "", _summary(record)))
        lines += [("", spec.name, f"{spec.doc} [{_shown(spec.default)}; {spec.allowed()}"
                  + ("; at boot" if spec.when == "boot" else "") + "]") for spec in record.options]
    lines += [(name, "", f"cannot be loaded: {reason}") for name, reason in broken.items()]
    lines += [(f"app.{app.name}", "", app.summary) for app in applications]
    table(("component", "option", "what it is [default; what is allowed]"), lines)
    return 0


def _shown(default: object) -> str:
    """Return a default for people."""
    return "none" if default is None else str(default)


def _summary(record: type[Any]) -> str:
    return (record.__doc__ or "").strip().splitlines()[0]


def do_build(choice: argparse.Namespace) -> int:
    """Build an image, or show its plan."""
    made = image(choice, settings(choice.set))
    plan = made.plan
    if choice.plan:
        print(json.dumps(plan.note(), indent=2) if choice.json else "\n".join(plan.lines()))
        return 0
    with progress(f"building {plan.name}"):
        path = made.build(choice.output or f"{plan.name}.elf")
    size = path.stat().st_size
    if choice.json:
        print(json.dumps({"path": str(path), "size_bytes": size, **plan.note()}))
    else:
        print(f"{path}: {size} bytes, boots on {', '.join(plan.entries)}")
    return 0


def loaded(choice: argparse.Namespace, given: dict[str, str]) -> BootImage:
    """Return the image TARGET means, built if need be."""
    if is_file(choice.target):
        if any(getattr(choice, name, None) for name in ("alloc", "sched", "net", "console", "files",
                                                        "platforms", "optimise")):
            raise CompositionError([f"{choice.target} is a finished image: its components cannot "
                                    "be chosen any more; build it anew"])
        return elf.load(choice.target)
    note, key = _remembered(choice, given)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(note.read_text())
        if kept["key"] == key:
            return elf.load(kept["path"])
    made = image(choice, given)
    with progress(f"building {made.name}"):
        path = made.build()
    with contextlib.suppress(OSError):
        cache.write(note, json.dumps({"key": key, "path": str(path)}).encode())
    return elf.load(path)


def _remembered(choice: argparse.Namespace, given: dict[str, str]) -> tuple[Path, list[Any]]:
    """Return where the image of these words is remembered, and what it depends on.

    A command that was given before, with nothing changed since, need not resolve anything: not
    the words, not the installed distributions, not a file of the package or of the application.
    """
    words = [choice.target, sorted(given.items()), os.environ.get("CC", ""), *(
        getattr(choice, name, None) for name in ("alloc", "sched", "net", "console", "files",
                                                 "platforms", "optimise", "cpus", "preempt"))]
    folders = [Path(__file__).resolve().parents[1]]
    if "/" in choice.target or choice.target in (".", ".."):
        folders.append(Path(choice.target).resolve())
    if getattr(choice, "files", None):
        folders.append(Path(choice.files).resolve())
    state = [list(_tree(str(folder))) for folder in folders]
    note = cache.folder() / f"words-{zlib.crc32(repr([words, folders]).encode()):08x}.json"
    return note, json.loads(json.dumps([words, registry.site(), state]))


def _tree(folder: str) -> Iterator[list[str | int]]:
    """Yield name, size and time of every file below a folder that an image may depend on."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _tree(entry.path)
            elif not entry.name.endswith((".pyc", ".so")):
                with contextlib.suppress(OSError):
                    stat = entry.stat()
                    yield [entry.path, stat.st_size, stat.st_mtime_ns]


def do_inspect(choice: argparse.Namespace) -> int:
    """Print components, options, sizes and entries of an image."""
    found = loaded(choice, {})
    from unikit.image import sizes
    parts = elf.sections(found.path)
    stored = found.path.stat().st_size
    by_component = sizes.by_component(found)
    if choice.json:
        print(json.dumps({"path": str(found.path), "size_bytes": stored, "plan": found.plan,
                          "sections": {part.name: part.size for part in parts},
                          "components_bytes": by_component,
                          "entries": dict(found.entries)}, indent=2))
        return 0
    print(f"{found.path}: {found.plan['name']}, {stored} bytes")
    rows = [("boots on", ", ".join(f"{name} ({address:#x})"
                                   for name, address in sorted(found.entries.items())), "")]
    for key, options in found.plan.get("components", {}).items():
        words = " ".join(f"{name}={value}" for name, value in options.items())
        rows.append(("component", key, words))
    if "alloc" in found.plan:
        rows.append(("allocator", " over ".join(found.plan["alloc"]), ""))
    rows += [("option", name, value) for name, value in found.plan.get("options", {}).items()]
    rows += [("section", part.name, f"{part.size} bytes of {part.kind} at {part.address:#x}")
             for part in parts]
    rows += [("code", name, f"{size} bytes") for name, size in by_component.items()]
    table(("", "", ""), rows)
    return 0


