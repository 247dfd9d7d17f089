"""Compose an application and components into one image, and boot it.

.. code-block:: python

    image = unikit.Image("echo", sources=["main.c"], alloc=Tlsf(pool="16M"), net="mini")
    with image.boot(platform="kvm", netif=Tap("uk0")) as vm:
        vm.console.expect("listening")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit.component import Component, Option
from unikit.errors import CompositionError, ImageError

if TYPE_CHECKING:
    from unikit.image.plan import Plan
    from unikit.image.resolve import Choice
    from unikit.platform.api import Machine, Platform

__all__ = ["Image"]


class Image:
    """An application with its components: a choice until it is built or booted.

    :param name: of the image; without ``sources``, a bundled application or a folder
        (:func:`unikit.apps.find`).
    :param sources: C, C++ and assembly files, objects and archives of the application.
    :param alloc: allocator: a record or a name; with layers a record (``Guard(Tlsf())``), or from
        the outside in ``"guard,tlsf"`` or a sequence. ``"auto"``: ``tlsf``, or ``shard`` for
        several processors.
    :param sched: scheduler; ``"auto"``: ``loop``, or ``coop`` if the application needs threads, or
        none if ``events`` is false; ``steal`` for several processors.
    :param net: TCP/IP stack; ``"auto"``: ``mini`` if the application needs the network.
    :param netif: a network component inside the image instead of the platform's device.
    :param console: a console component or several; default: the platform's own.
    :param files: a folder to pack into the image.
    :param platforms: the entries it carries (``("kvm", "linux")``); default: all there are.
    :param settings: ``id.option`` to value, as ``--set`` on the command line.
    :param needs: what the application needs, as in :attr:`unikit.component.Component.requires`.
    :param events: whether anything happens after ``init_application``; ``False``: the image ends
        when that returns, and needs neither scheduler nor main loop.
    :param options: options of the application itself.
    :param forward: ports a run without privileges forwards, ``"8080:80"``.
    :param optimise: ``"speed"``, ``"size"`` or ``"debug"``.
    :param flags: further compiler flags for the application's sources.
    :param cpus: most processors that it may get; a boot may give it fewer.
    :param preempt: whether tasks are stopped when their slice is over (:doc:`/design/preemption`);
        ``"auto"``: where the scheduler can do that.
    """

    def __init__(self, name: str, sources: Sequence[str | Path] = (), *,
                 alloc: Choice | Sequence[Choice] = "auto", sched: Choice = "auto",
                 net: Choice = "auto", netif: Choice = None,
                 console: Choice | Sequence[Choice] = (), files: str | Path | None = None,
                 platforms: Sequence[str] | None = None,
                 settings: Mapping[str, Any] | None = None, needs: Sequence[str] = (),
                 events: bool = True, options: Sequence[Option] = (), forward: Sequence[str] = (),
                 optimise: str = "speed", flags: Sequence[str] = (), cpus: int = 1,
                 preempt: bool | str = "auto") -> None:
        if not sources:
            from unikit import apps
            app = apps.find(name)
            name, sources = app.name, app.source_files()
            needs, options = (*app.needs, *needs), (*app.options, *options)
            files = files if files is not None else app.files_folder()
            forward, flags = forward or app.forward, (*app.flags, *flags)
            events = events and app.events
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name):
            raise CompositionError([f"image name {name!r}: give lower case letters, digits, - and "
                                    "_, a letter first"])
        consoles = (console,) if console is None or isinstance(console, str | Component | type) \
            else tuple(console)
        from unikit.image.resolve import Wish
        self.wish = Wish(name, tuple(sources), tuple(needs), tuple(options), alloc, sched, net,
                         netif, tuple(each for each in consoles if each is not None), files,
                         tuple(forward), platforms, dict(settings or {}), optimise, tuple(flags),
                         events, cpus, preempt)

    @property
    def name(self) -> str:
        """Return the name of the image."""
        return self.wish.name

    @cached_property
    def plan(self) -> Plan:
        """Return what the image will be made of.

        :raises CompositionError: with every problem at once.
        """
        from unikit.image.resolve import resolve
        return resolve(self.wish)

    def build(self, output: str | Path | None = None) -> Path:
        """Build the image and return its path; its symbols are beside it in ``NAME.debug``.

        :param output: where to put it; default: the cache, where an image that was built before
            is found again.
        :raises CompositionError: the plan has problems, or the application calls what it lacks.
        :raises ToolchainError: a compiler is missing or failed.
        """
        from unikit.image.build import cached
        built = cached(self.plan)
        if output is None:
            return built
        target = Path(output)
        if not target.parent.is_dir():
            raise ImageError(f"cannot write {target}: there is no folder {target.parent}")
        if target.exists() and not target.is_file():  # renaming would replace a device or a pipe
            raise ImageError(f"cannot write {target}: it exists and is no file")
        import shutil
        try:
            for ending in ("", ".debug"):
                fresh = target.with_name(f".{target.name}.fresh{ending}")
                shutil.copy(built.with_name(built.name + ending), fresh)
                fresh.replace(target.with_name(target.name + ending))
        except OSError as error:
            raise ImageError(f"cannot write {target}: {error.strerror}") from error
        return target

    def boot(self, platform: str | Platform = "auto", *, memory: int | str = "16M",
             netif: Any = None, options: Mapping[str, Any] | None = None, args: str = "",
             name: str = "", sink: Callable[[bytes], object] | None = None,
             cpus: int | None = None) -> Machine:
        """Build and boot the image; see :func:`unikit.image.boot.boot` for the parameters."""
        from unikit.image import elf
        from unikit.image.boot import boot, choose_platform
        if isinstance(platform, str) and platform == "auto" and self.wish.platforms is not None:
            platform, _ = choose_platform(self.wish.platforms)
        return boot(elf.load(self.build()), platform, memory=memory, netif=netif, options=options,
                    args=args, name=name, sink=sink, cpus=cpus)
