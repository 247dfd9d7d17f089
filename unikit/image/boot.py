"""Boot built images: which platform, which options, whose network interface."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit import registry
from unikit.component import Component, Option, parse_size
from unikit.errors import CompositionError, ImageError, PlatformError
from unikit.image import elf

if TYPE_CHECKING:
    from unikit.platform.api import BootImage, Machine, Platform

AUTO = ("kvm", "linux", "qemu")
"""What ``platform="auto"`` tries, in order."""
MEMORY = "16M"
"""What a guest gets unless it is told otherwise."""


def choose_platform(entries: Sequence[str]) -> tuple[Platform, str]:
    """Return the platform that ``"auto"`` takes for an image, and why, in one line.

    :param entries: what the image can boot on.
    :raises PlatformError: none works here; every reason is named.
    """
    from unikit.platform.api import probe
    reasons: list[str] = []
    able: dict[str, Any] = {name: registry.find(name, "platform") for name in AUTO}
    able = {name: record for name, record in able.items() if record.entry in entries}
    for name, record in able.items():
        reason = probe(record)
        if reason is None:
            why = "; ".join(reasons) or f"it works here and is the best of {', '.join(able)}"
            return record(), f"platform {name}: {why}"
        reasons.append(f"not {name}: {reason}")
    raise PlatformError(f"the image boots on {', '.join(entries)}, but here: "
                        f"{'; '.join(reasons) or 'none of them is known'}")


def boot(image: BootImage | str | Path, platform: str | Platform = "auto", *,
         memory: int | str = MEMORY, netif: Any = None, options: Mapping[str, Any] | None = None,
         args: str = "", name: str = "",
         sink: Callable[[bytes], object] | None = None, cpus: int | None = None) -> Machine:
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
    :param cpus: processors; default: as many as the image was composed for. More than the host
        has are allowed and take turns.
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
    if size >= 1 << 63:
        raise CompositionError([f"memory: {memory} is more than any machine has"])
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
                                sink=sink, **_processors(image, platform, cpus))
        undo.pop_all()
    machine.netif = netif
    if owned is not None:
        machine.adopt(owned)
    return machine


def _processors(image: BootImage, platform: Platform, cpus: int | None) -> dict[str, int]:
    """Return how many processors to ask the platform for; nothing for an image with one."""
    most = int(image.plan.get("cpus", 1))
    wanted = most if cpus is None else cpus
    if not 1 <= wanted <= most:
        raise CompositionError([f"cpus: {wanted}; {image.plan.get('name', image.path.stem)} was "
                                f"composed for {most}; compose it with cpus={max(wanted, 1)}"
                                if wanted > 0 else f"cpus: {wanted}; give 1 to {most}"])
    if most > 1 and "cpus" not in platform.features:
        if (cpus or 1) > 1:
            raise PlatformError(f"{platform.id} gives an image one processor, not {cpus}")
        return {}
    here = os.cpu_count() or 1
    if wanted > here:
        logging.getLogger(__name__).warning(
            "%d processors are asked for; this host has %d, so they take turns", wanted, here)
    return {"cpus": wanted} if most > 1 else {}


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
