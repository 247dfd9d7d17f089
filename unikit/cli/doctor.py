"""``unikit doctor``: what this machine offers, each point with reason and remedy."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path

from unikit import registry
from unikit.cli.output import table
from unikit.errors import UnikitError

Check = Callable[[], str | None]
"""Returns ``None`` if all is well, else reason and remedy."""


def _compiler() -> str | None:
    from unikit.image import toolchain
    try:
        toolchain.run((*toolchain.compiler(), "--version"))
    except UnikitError as error:
        return str(error)
    for tool in ("objcopy", "ld"):
        if shutil.which(tool) is None:
            return f"{tool} is missing; apt-get install binutils"
    return None


def _extensions() -> str | None:
    from unikit.ffi import load
    try:
        load.abi()
    except ImportError as error:
        return str(error)
    return None


def _name() -> str | None:
    """The name ``unikit`` belongs to something else on the package index."""
    try:
        other = metadata.distribution("unikit")
    except metadata.PackageNotFoundError:
        return None
    return (f"a foreign distribution called unikit {other.version} is installed and may shadow "
            "this one, which is called unikit-os; remove it: pip uninstall unikit")


def _plugins() -> str | None:
    try:
        broken = registry.broken()
    except UnikitError as error:
        return str(error)
    return "; ".join(f"{name}: {reason}" for name, reason in broken.items()) or None


def _tap() -> str | None:
    return import_module("unikit.net.netif.tap").probe()  # type: ignore[no-any-return]


def _huge() -> str | None:
    try:
        free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    except (OSError, ValueError):
        return "the kernel has no 2 MiB pages"
    thp = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    allowed = thp.exists() and "[never]" not in thp.read_text()
    if free or allowed:
        return None
    return ("none reserved and transparent ones are off; as root: "
            "echo 64 > /proc/sys/vm/nr_hugepages")


def _seccomp() -> str | None:
    text = Path("/proc/self/status").read_text()
    return None if "Seccomp:" in text else "the kernel has no seccomp; images run without a filter"


def _runtime() -> str | None:
    from unikit.cli import control
    try:
        control.folder()
    except (OSError, UnikitError) as error:
        return str(error)
    return None


def checks() -> Iterator[tuple[str, str, Check]]:
    """Yield (name, what it is for, check), platforms as they are registered."""
    yield "compiler", "building images", _compiler
    yield "extensions", "components in this process, the kvm monitor", _extensions
    for record in registry.components("platform"):
        if hasattr(record, "probe"):
            yield record.id, f"unikit run --platform {record.stem()}", record.probe
    yield "tap", "unikit run --netif tap", _tap
    yield "huge pages", "large guests and arenas", _huge
    yield "seccomp", "locking images down that run as Linux processes", _seccomp
    yield "plug-ins", "third-party components", _plugins
    yield "package name", "importing the right unikit", _name
    yield "runtime folder", "unikit ps, logs, stop, stats", _runtime


def do_doctor(choice: argparse.Namespace) -> int:
    """Print every check; 0 if an image can be built and booted here."""
    rows = []
    for name, purpose, check in checks():
        try:
            reason = check()
        except Exception as error:  # a doctor that dies of a symptom helps nobody
            reason = f"the check itself failed: {type(error).__name__}: {error}"
        rows.append({"name": name, "for": purpose, "ok": reason is None, "reason": reason})
    if choice.json:
        print(json.dumps({"user": os.getuid(), "checks": rows}, indent=2))
    else:
        table(("", "", ""), [("ok" if row["ok"] else "no", row["name"],
                              row["reason"] or row["for"]) for row in rows])
    good = {str(row["name"]) for row in rows if row["ok"]}
    return 0 if "compiler" in good and any(name.startswith("platform.") for name in good) else 1
