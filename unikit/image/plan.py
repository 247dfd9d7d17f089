"""The plan: everything an image is made of, decided, printable, comparable.

A plan is pure data. :mod:`unikit.image.resolve` makes it, :mod:`unikit.image.emit` and
:mod:`unikit.image.toolchain` carry it out, and as JSON it rides in a note of the image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from unikit.component import Component, Option

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class PackedFile:
    """A file that goes into the image under ``path`` (relative, ``/`` between names)."""

    path: str
    source: Path
    size: int

    @property
    def media_type(self) -> str:
        """Return the media type by the file name's ending; text gets its charset."""
        import mimetypes  # 5 ms that only images with files pay
        kind = mimetypes.guess_type(self.path, strict=False)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind in ("application/javascript", "application/json"):
            return kind + "; charset=utf-8"
        return kind

    def digest(self) -> int:
        """Return 64 bits of a hash of the contents."""
        return int.from_bytes(hashlib.sha256(self.source.read_bytes()).digest()[:8], "big")


@dataclasses.dataclass(frozen=True, slots=True)
class AppOption:
    """An option of the application with its decided value."""

    spec: Option
    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What an image is made of.

    :ivar name: of the image.
    :ivar sources: of the application, absolute.
    :ivar alloc: allocator, with its options and its layers.
    :ivar sched: scheduler or ``None``: the image ends when ``init_application`` has returned.
    :ivar net: TCP/IP stack or ``None``.
    :ivar netif: network component inside the image or ``None``: the platform's device.
    :ivar consoles: in order of opening; empty: the platform's own.
    :ivar entries: names of the platform entries it carries, sorted.
    :ivar entry_sources: their C and assembly files.
    :ivar files: packed files, sorted by path bytes.
    :ivar app_options: the application's options.
    :ivar forward: ports that a run without privileges forwards, ``"8080:80"``.
    :ivar optimise: ``speed``, ``size`` or ``debug``.
    :ivar flags: further compiler flags for the application's sources.
    :ivar cpus: most processors that it may get.
    :ivar preempt: whether tasks are stopped when their slice is over.
    """

    name: str
    sources: tuple[Path, ...]
    alloc: Component
    sched: Component | None
    net: Component | None
    netif: Component | None
    consoles: tuple[Component, ...]
    entries: tuple[str, ...]
    entry_sources: tuple[Path, ...]
    files: tuple[PackedFile, ...]
    app_options: tuple[AppOption, ...]
    forward: tuple[str, ...]
    optimise: str = "speed"
    flags: tuple[str, ...] = ()
    cpus: int = 1
    preempt: bool = False

    def components(self) -> tuple[Component, ...]:
        """Return every component of the image, in the order of opening."""
        parts = (*reversed(self.allocators()), self.sched, self.netif, self.net, *self.consoles)
        return tuple(part for part in parts if part is not None)

    def allocators(self) -> tuple[Component, ...]:
        """Return the layers of the allocator, from the outside in, and what they stand on."""
        return self.alloc.layers()

    def threads(self) -> bool:
        """Return whether tasks have stacks of their own."""
        return self.sched is not None and "threads" in self.sched.features

    def faces(self) -> bool:
        """Return whether each processor has a face of the allocator of its own."""
        return self.cpus > 1 and "shared" not in self.alloc.features

    def device(self) -> bool:
        """Return whether the stack runs on the platform's network device, directly or not."""
        return self.net is not None and (self.netif is None or "layer" in self.netif.features)

    def direct(self) -> bool:
        """Return whether nothing stands between the stack and the platform's network device."""
        return self.net is not None and self.netif is None

    def note(self) -> dict[str, Any]:
        """Return what the image says about itself."""
        components = {part.id: {name: value for name, value in part.changed().items()}
                      for part in self.components()}
        note: dict[str, Any] = {"format": FORMAT, "name": self.name, "components": components,
                                "entries": list(self.entries)}
        if self.cpus > 1:
            note["cpus"] = self.cpus
        if self.preempt:
            note["preempt"] = True
        if len(self.allocators()) > 1:
            note["alloc"] = [part.id for part in self.allocators()]
        options = {each.spec.name: each.value for each in self.app_options}
        if options:
            note["options"] = options
        if self.files:
            note["files"] = len(self.files)
        if self.forward:
            note["forward"] = list(self.forward)
        return note

    def json(self) -> str:
        """Return :meth:`note` as compact JSON; same plan, same text."""
        return json.dumps(self.note(), separators=(",", ":"), sort_keys=True)

    def lines(self) -> list[str]:
        """Return the whole plan for people, a fact a line."""
        lines = [f"image      {self.name}", f"boots on   {', '.join(self.entries)}",
                 f"optimise   {self.optimise}"]
        over = {part.id: f" over {below.id}" for part, below in pairwise(self.allocators())}
        for part in self.components():
            options = ", ".join(f"{spec.name}={getattr(part, spec.name)}"
                                + (" (boot)" if spec.when == "boot" else "")
                                for spec in part.options if spec.kind != "component")
            lines.append(f"{part.domain():<10} {part.id}{over.get(part.id, '')}"
                         + (f"  {options}" if options else ""))
        if self.cpus > 1:
            lines.append(f"cpus       {self.cpus} at most")
        if not self.consoles:
            lines.append("console    the platform's own")
        if self.preempt:
            lines.append("preempt    tasks are stopped when their slice is over")
        lines += [f"option     {self.name}.{each.spec.name}={each.value}"
                  for each in self.app_options]
        lines += [f"source     {path}" for path in self.sources]
        lines += [f"file       {file.path} ({file.size} bytes)" for file in self.files]
        lines += [f"forward    {each}" for each in self.forward]
        return lines
