"""Compose an application and components into one image, and boot it.

.. code-block:: python

    image = unikit.Image("echo", sources=["main.c"], alloc=Tlsf(pool="16M"), net="mini")
    with image.boot(platform="kvm", netif=Tap("uk0")) as vm:
        vm.console.expect("listening")
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit import cache, registry
from unikit.component import Component, Option, parse_size
from unikit.errors import CompositionError, ImageError, PlatformError, ToolchainError
from unikit.image import elf, emit, toolchain
from unikit.image.plan import Plan
from unikit.image.resolve import Choice, Wish, resolve
from unikit.image.runtime import lacking
from unikit.image.runtime import sources as runtime_sources

if TYPE_CHECKING:
    from unikit.platform.api import BootImage, Machine, Platform

__all__ = ["Image", "Plan", "boot", "choose_platform"]

SCRIPT = toolchain.ROOT / "unikit/platform/x86/image.ld"
AUTO = ("kvm", "linux")
"""What ``platform="auto"`` tries, in order."""
MEMORY = "16M"
_UNDEFINED = re.compile(r"undefined reference to `([^']+)'")
_DOUBLE = re.compile(r"multiple definition of `([^']+)'")


class Image:
    """An application with its components: a choice until it is built or booted.

    :param name: of the image; without ``sources``, a bundled application or a folder
        (:func:`unikit.apps.find`).
    :param sources: C, C++ and assembly files, objects and archives of the application.
    :param alloc: allocator: a record or a name.
    :param sched: scheduler; ``"auto"``: ``loop``, or ``coop`` if the application needs threads, or
        none if ``events`` is false.
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
    """

    def __init__(self, name: str, sources: Sequence[str | Path] = (), *, alloc: Choice = "tlsf",
                 sched: Choice = "auto", net: Choice = "auto", netif: Choice = None,
                 console: Choice | Sequence[Choice] = (), files: str | Path | None = None,
                 platforms: Sequence[str] | None = None,
                 settings: Mapping[str, Any] | None = None, needs: Sequence[str] = (),
                 events: bool = True, options: Sequence[Option] = (), forward: Sequence[str] = (),
                 optimise: str = "speed", flags: Sequence[str] = ()) -> None:
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
        self.wish = Wish(name, tuple(sources), tuple(needs), tuple(options), alloc, sched, net,
                         netif, tuple(each for each in consoles if each is not None), files,
                         tuple(forward), platforms, dict(settings or {}), optimise, tuple(flags),
                         events)

    @property
    def name(self) -> str:
        """Return the name of the image."""
        return self.wish.name

    @cached_property
    def plan(self) -> Plan:
        """Return what the image will be made of.

        :raises CompositionError: with every problem at once.
        """
        return resolve(self.wish)

    def build(self, output: str | Path | None = None) -> Path:
        """Build the image and return its path; its symbols are beside it in ``NAME.debug``.

        :param output: where to put it; default: the cache, where an image that was built before
            is found again.
        :raises CompositionError: the plan has problems, or the application calls what it lacks.
        :raises ToolchainError: a compiler is missing or failed.
        """
        built = self._cached()
        if output is None:
            return built
        target = Path(output)
        if not target.parent.is_dir():
            raise ImageError(f"cannot write {target}: there is no folder {target.parent}")
        import shutil
        try:
            for ending in ("", ".debug"):
                fresh = target.with_name(f".{target.name}.fresh{ending}")
                shutil.copy(built.with_name(built.name + ending), fresh)
                fresh.replace(target.with_name(target.name + ending))
        except OSError as error:
            raise ImageError(f"cannot write {target}: {error.strerror}") from error
        return target

    def boot(self, platform: str | Platform = "auto", *, memory: int | str = MEMORY,
             netif: Any = None, options: Mapping[str, Any] | None = None, args: str = "",
             name: str = "", sink: Callable[[bytes], object] | None = None) -> Machine:
        """Build and boot the image; see :func:`boot` for the parameters."""
        if isinstance(platform, str) and platform == "auto" and self.wish.platforms is not None:
            platform, _ = choose_platform(self.wish.platforms)
        return boot(elf.load(self.build()), platform, memory=memory, netif=netif, options=options,
                    args=args, name=name, sink=sink)

    def _cached(self) -> Path:
        plan = self.plan
        key = _fingerprint(plan)
        folder = cache.folder() / "images" / key
        target = folder / f"{plan.name}.elf"
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make(plan, folder, target)
        return target


def _fingerprint(plan: Plan) -> str:
    """Return a name for everything an image is made from; files by path, size and time."""
    digest = hashlib.sha256()

    def add(*words: object) -> None:
        digest.update("\0".join(map(str, words)).encode() + b"\1")

    add(toolchain.identity(), plan.json(), *plan.lines(), *plan.flags)
    for part in plan.components():
        add(part.id, *part.encoded())
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
        objects = toolchain.compile_all(_units(plan, folder), plan.optimise)
        toolchain.link(objects, SCRIPT, target, plan.optimise)
    except ToolchainError as error:
        problems = _missing(plan, error.stderr)
        if problems:
            raise CompositionError(problems) from error
        raise


def _units(plan: Plan, folder: Path) -> list[toolchain.Unit]:
    """Return what to compile: components for speed, what runs once for size."""
    root = toolchain.ROOT / "unikit"
    defines = tuple(f"KIT_SOLE_{part.domain().upper()}={part.symbol()}"
                    for part in (plan.alloc, plan.sched, plan.net) if part is not None)
    defines += (f"KIT_WITH_NETWORK={int(plan.net is not None)}", "KIT_ENV_DIRECT")
    if not plan.consoles:
        defines += ("KIT_CONSOLE_DIRECT",)
    once = "size" if plan.optimise == "speed" else ""

    def unit(path: Path, **more: Any) -> toolchain.Unit:
        return toolchain.Unit(path, defines, lto=path.suffix in (".c", ".cc", ".cpp"), **more)

    units = [unit(path, optimise=once) for path in (
        *runtime_sources(events=plan.sched is not None, net=plan.net is not None,
                         threads=plan.threads()),
        root / "rt/format.c", *plan.entry_sources, folder / "composition.c")]
    units += [unit(path, includes=(part.folder(),)) for part in plan.components()
              for path in part.source_files()]
    if plan.threads():
        units.append(unit(root / "sched/sync.c"))
    units += [toolchain.Unit(path, lto=False) for path in (
        root / "rt/string.c", root / "image/runtime/stack_protector.c", folder / "data.S")]
    units += [unit(path, application=True, includes=(path.parent,), flags=plan.flags)
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


def choose_platform(entries: Sequence[str]) -> tuple[Platform, str]:
    """Return the platform that ``"auto"`` takes for an image, and why, in one line.

    :param entries: what the image can boot on.
    :raises PlatformError: none works here; every reason is named.
    """
    from unikit.platform.api import probe
    reasons: list[str] = []
    for name in AUTO:
        if name not in entries:
            continue
        record = registry.find(name, "platform")
        reason = probe(record)  # type: ignore[arg-type]
        if reason is None:
            why = "; ".join(reasons) or "it works here and is the best of "\
                + ", ".join(each for each in AUTO if each in entries)
            return record(), f"platform {name}: {why}"  # type: ignore[return-value]
        reasons.append(f"not {name}: {reason}")
    raise PlatformError(f"the image boots on {', '.join(entries)}, but here: "
                        f"{'; '.join(reasons) or 'none of them is known'}")


def boot(image: BootImage | str | Path, platform: str | Platform = "auto", *,
         memory: int | str = MEMORY, netif: Any = None, options: Mapping[str, Any] | None = None,
         args: str = "", name: str = "",
         sink: Callable[[bytes], object] | None = None) -> Machine:
    """Boot a built image.

    :param image: a path, or what :func:`unikit.image.elf.load` read.
    :param platform: ``"auto"``, a name or a platform record.
    :param memory: all the guest gets, ``"16M"`` or bytes.
    :param netif: a network record (``Tap("uk0")``, opened now and closed with the machine), an
        open interface (stays the caller's), or ``None``.
    :param options: boot options by name, ``{"net.mini.address": "10.0.0.2/24"}``.
    :param args: the application's argument string.
    :param name: of the machine.
    :param sink: gets console output from the first byte on.
    :raises PlatformError: the platform does not work here or refuses.
    :raises ImageError: the image lacks the platform's entry or does not fit into the memory.
    :raises CompositionError: an option is unknown to the image or out of range.
    """
    from unikit.platform.api import probe
    if isinstance(image, str | Path):
        image = elf.load(image)
    if platform == "auto":
        platform, _ = choose_platform(tuple(image.entries))
    elif isinstance(platform, str):
        platform = registry.find(platform, "platform")()  # type: ignore[assignment]
    assert not isinstance(platform, str)
    reason = probe(type(platform))
    if reason is not None:
        raise PlatformError(f"{platform.id} does not work here: {reason}")
    if platform.entry not in image.entries:
        raise ImageError(f"{image.path} has no entry for {platform.entry}, only for "
                         f"{', '.join(image.entries)}; build it with --for {platform.entry}")
    try:
        size = parse_size(memory)
    except ValueError as error:
        raise CompositionError([f"memory: {error}"]) from error
    given = boot_options(image, options or {})
    with contextlib.ExitStack() as undo:
        owned = None
        if isinstance(netif, Component):
            netif = owned = netif.open()  # type: ignore[attr-defined]
            undo.callback(owned.close)
        for key, value in _suggested(image, netif).items():
            given.setdefault(key, value)
        if args:
            given[""] = args
        machine = platform.boot(image, memory=size, netif=netif, options=given, name=name,
                                sink=sink)
        undo.pop_all()
    machine.netif = netif
    if owned is not None:
        machine.adopt(owned)
    return machine


def boot_options(image: BootImage, given: Mapping[str, Any]) -> dict[str, str]:
    """Check boot options against the image's plan and return them as text.

    :raises CompositionError: unknown, fixed at build time or out of range; all at once.
    """
    checked, problems = {}, []
    for key, value in given.items():
        spec = _boot_option(image, key)
        if spec is None:
            problems.append(f"{key}: this image has no such option; it has "
                            f"{', '.join(_boot_names(image)) or 'none'}")
        elif spec.when != "boot":
            problems.append(f"{key}: fixed when the image was built; build it anew with "
                            f"--set {key}={value}")
        else:
            try:
                checked[key] = _as_text(spec, spec.parse(value))
            except ValueError as error:
                problems.append(f"{key}: {error}")
    if problems:
        raise CompositionError(problems)
    return checked


def _as_text(spec: Option, value: Any) -> str:
    return str(value).lower() if spec.kind == "bool" else str(value)


def _specs(image: BootImage) -> dict[str, Option]:
    """Return the options of an image by name, as far as their records are installed here."""
    found: dict[str, Option] = {}
    for key in image.plan.get("components", {}):
        with contextlib.suppress(CompositionError, LookupError):
            found |= {f"{key}.{spec.name}": spec for spec in registry.find(key).options}
    with contextlib.suppress(CompositionError, LookupError):
        from unikit import apps
        app = apps.find(image.plan["name"])
        found |= {f"app.{app.name}.{spec.name}": spec for spec in app.options}
    for name in image.plan.get("options", {}):
        key = f"app.{image.plan['name']}.{name}"
        found.setdefault(key, Option(name, "", "an option of the application", "text", when="boot"))
    return found


def _boot_option(image: BootImage, key: str) -> Option | None:
    return _specs(image).get(key)


def _boot_names(image: BootImage) -> list[str]:
    return sorted(key for key, spec in _specs(image).items() if spec.when == "boot")


def _suggested(image: BootImage, netif: Any) -> dict[str, str]:
    """Return the addresses an interface suggests for the image's end, where the stack has them."""
    found = {}
    stack = next((key for key in image.plan.get("components", {}) if key.startswith("net.")), None)
    chosen = image.plan.get("components", {}).get(stack, {}) if stack else {}
    for option, attribute in (("address", "image_address"), ("gateway", "outer_address")):
        value = str(getattr(netif, attribute, "")).partition("/" if option == "gateway" else " ")[0]
        if stack and value and option not in chosen and _boot_option(image, f"{stack}.{option}"):
            found[f"{stack}.{option}"] = value
    return found
