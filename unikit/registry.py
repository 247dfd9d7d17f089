"""Find components: built-in and third-party ones come through the same entry-point group.

The scan runs at first use and is cached. ``UNIKIT_NO_PLUGINS=1`` leaves other distributions out. A
plug-in that cannot be loaded never takes the others down: it is listed in :func:`broken`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import zlib
from functools import cache as once

from unikit import cache
from unikit.component import Component
from unikit.errors import CompositionError, NotFound

GROUP = "unikit.components"
DISTRIBUTION = "unikit-os"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One registered component, not loaded yet.

    :ivar id: what the entry point is called.
    :ivar target: ``module:Class``.
    :ivar distribution: the package that brings it.
    """

    id: str
    target: str
    distribution: str


@once
def entries() -> dict[str, Entry]:
    """Return every registered component by id, without importing any.

    :raises CompositionError: two distributions claim one id; both are named.
    """
    found: dict[str, Entry] = {}
    problems = []
    for entry in _scan():
        if entry.distribution != DISTRIBUTION and os.environ.get("UNIKIT_NO_PLUGINS") == "1":
            continue
        other = found.setdefault(entry.id, entry)
        if other != entry:  # an editable installation shows the same one twice
            problems.append(
                f"{entry.id}: claimed by both {other.distribution} ({other.target}) and "
                f"{entry.distribution} ({entry.target}); uninstall one of them")
    if problems:
        raise CompositionError(problems)
    return dict(sorted(found.items()))


def find(name: str, domain: str | None = None) -> type[Component]:
    """Return the record of a component.

    :param name: an id (``"alloc.tlsf"``), or a bare name with ``domain`` (``"tlsf"``).
    :raises NotFound: there is none; the message lists what there is in that domain.
    :raises CompositionError: its record cannot be loaded or does not fit its entry point.
    """
    key = f"{domain}.{name}" if domain and "." not in name else name
    entry = entries().get(key)
    if entry is None:
        prefix = key.partition(".")[0] + "."
        known = [each.removeprefix(prefix) for each in entries()
                 if each.startswith(prefix)] if "." in key else list(entries())
        raise NotFound(f"there is no component {key!r}; known: {', '.join(known) or 'none'}")
    record = _load(entry)
    if isinstance(record, str):
        raise CompositionError([f"{key} (from {entry.distribution}) cannot be loaded: {record}"])
    return record


def components(domain: str | None = None) -> list[type[Component]]:
    """Return every record that loads, sorted by id; of one domain if given."""
    return [record for entry in entries().values()
            if domain is None or entry.id.startswith(domain + ".")
            if not isinstance(record := _load(entry), str)]


def broken() -> dict[str, str]:
    """Return the ids whose record does not load, each with the reason."""
    return {entry.id: reason for entry in entries().values()
            if isinstance(reason := _load(entry), str)}


def clear() -> None:
    """Forget the scan; the next use repeats it (after an installation, in tests)."""
    entries.cache_clear()
    _load.cache_clear()


def _scan() -> list[Entry]:
    """Return what the installed distributions register; kept on disk until one of them changes."""
    state = site()
    note = cache.folder() / f"components-{zlib.crc32(repr(sys.path).encode()):08x}.json"
    try:
        kept = json.loads(note.read_text())
        found = [Entry(*row) for row in kept["entries"]] if kept["state"] == state else None
    except (OSError, ValueError, TypeError, KeyError):
        found = None
    if found is None:
        from importlib import metadata  # 15 ms
        found = [Entry(point.name, point.value, point.dist.name if point.dist else "?")
                 for point in metadata.entry_points(group=GROUP)]
        rows = [[entry.id, entry.target, entry.distribution] for entry in found]
        with contextlib.suppress(OSError):
            cache.write(note, json.dumps({"state": state, "entries": rows}).encode())
    if not any(entry.distribution == DISTRIBUTION for entry in found):
        found += _checkout()
    return found


def site() -> list[list[str | int]]:
    """Return where distributions are looked for and when each place last changed.

    Installing, removing or replacing a distribution changes the time of the folder it lies in.
    """
    state: list[list[str | int]] = []
    for place in sys.path:
        with contextlib.suppress(OSError):
            state.append([place, os.stat(place or ".").st_mtime_ns])  # noqa: PTH116  1 us each
    return state


def _checkout() -> list[Entry]:
    """Read the entry points of a source tree that runs without being installed."""
    import tomllib
    from pathlib import Path
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if not path.exists():
        return []
    project = tomllib.loads(path.read_text()).get("project", {})
    if project.get("name") != DISTRIBUTION:  # somebody else's project with a copy of unikit in it
        return []
    return [Entry(name, target, DISTRIBUTION)
            for name, target in project.get("entry-points", {}).get(GROUP, {}).items()]


@once
def _load(entry: Entry) -> type[Component] | str:
    """Import a record, or say why not."""
    import importlib
    module, _, attribute = entry.target.partition(":")
    try:
        record = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a foreign module must not stop the others
        return f"{type(error).__name__}: {error}"
    if not (isinstance(record, type) and issubclass(record, Component)):
        return f"{entry.target} is not a component record"
    if record.id != entry.id:
        return f"its id is {record.id!r}, its entry point says {entry.id!r}"
    return record
