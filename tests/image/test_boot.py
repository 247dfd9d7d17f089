"""Booting: the choice of a platform, options checked on the host, interfaces opened and closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unikit.component import component, option
from unikit.errors import CompositionError, ImageError, InvalidArgument, PlatformError
from unikit.image import boot as booting
from unikit.net import Interface
from unikit.platform import api
from unikit.platform.api import BootImage, Platform

pytestmark = pytest.mark.fast


class Machine:
    """What the platform below boots: it keeps what it was given."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.netif: Any = None
        self.adopted: list[Any] = []

    def adopt(self, owned: Any) -> None:
        self.adopted.append(owned)


@component
class Paper(Platform):
    """Boots nothing."""

    id = "platform.paper"
    entry = "linux"
    refuses: bool = option(False, "whether it refuses to boot", kind="bool")

    @classmethod
    def probe(cls) -> str | None:
        return None

    def boot(self, image: BootImage, **given: Any) -> Any:
        if self.refuses:
            raise InvalidArgument("refused")
        return Machine(given)


class Link:
    """An open interface that suggests addresses for the image's end."""

    image_address = "10.0.2.15/24"
    outer_address = "10.0.2.2/24"
    closed = False

    def close(self) -> None:
        self.closed = True


LINKS: list[Link] = []


@component
class Record(Interface):
    """A network record."""

    id = "netif.record"
    side = "host"

    def open(self) -> Any:
        LINKS.append(Link())
        return LINKS[-1]


def image(**plan: Any) -> BootImage:
    given = {"format": 1, "name": "app", "components": {"net.mini": {}, "alloc.tlsf": {}}} | plan
    return BootImage(Path("app.elf"), (), {"linux": 0x100000}, given)


def boot(**more: Any) -> Machine:
    made = image(**more.pop("plan", {}))
    machine: Any = booting.boot(made, more.pop("platform", Paper()), **more)
    return machine


def test_addresses_that_the_interface_suggests_are_boot_options() -> None:
    """A run without privileges needs no ``--set``; what was asked for or built in comes first."""
    assert boot(netif=Link()).given["options"] == {
        "net.mini.address": "10.0.2.15/24", "net.mini.gateway": "10.0.2.2"}
    asked = boot(netif=Link(), options={"net.mini.address": "10.0.2.9/24"})
    assert asked.given["options"]["net.mini.address"] == "10.0.2.9/24"
    built = boot(netif=Link(), plan={"components": {"net.mini": {"address": "10.1.0.1/8"}}})
    assert "net.mini.address" not in built.given["options"]
    assert boot(netif=Link(), plan={"components": {}}).given["options"] == {}


def test_memory_arguments_and_name_are_handed_on() -> None:
    """Sizes as bytes, the argument string under the empty name."""
    given = boot(memory="4M", args="a b", name="one").given
    assert (given["memory"], given["options"], given["name"]) == (4 << 20, {"": "a b"}, "one")
    with pytest.raises(CompositionError, match="memory: 'much' is not a size"):
        boot(memory="much")


def test_a_record_is_opened_for_the_machine_and_closed_if_it_does_not_boot() -> None:
    """An open interface stays the caller's; nothing is left behind by a boot that failed."""
    machine = boot(netif=Record())
    assert machine.adopted == [machine.netif] == LINKS[-1:]
    mine = Link()
    assert boot(netif=mine).adopted == []
    with pytest.raises(InvalidArgument):
        boot(platform=Paper(refuses=True), netif=Record())
    assert LINKS[-1].closed and not mine.closed


def test_every_wrong_boot_option_is_told_at_once() -> None:
    """Unknown ones with what there is, fixed ones with the way to build them anew, bad values."""
    with pytest.raises(CompositionError) as caught:
        boot(options={"net.mini.colour": 1, "net.mini.connections": 9, "net.mini.address": "here"},
             plan={"options": {"motto": "x"}})
    one, two, three = caught.value.problems
    assert "has no such option; it has app.app.motto, net.mini.address" in one
    assert "build it anew with --set net.mini.connections=9" in two
    assert "an IPv4 prefix" in three
    assert booting.boot_options(image(options={"motto": "x"}), {"app.app.motto": "y"}) == {
        "app.app.motto": "y"}


def test_an_image_from_elsewhere_boots_with_components_unknown_here() -> None:
    """Its plan may name what is not installed: those options alone are unknown."""
    strange = image(components={"alloc.strange": {}, "net.mini": {}})
    assert booting.boot_options(strange, {"net.mini.address": "10.0.0.2/24"})
    with pytest.raises(CompositionError, match="it has none"):
        booting.boot_options(image(components={"alloc.strange": {}}), {"alloc.strange.x": 1})


def test_an_image_without_the_platforms_entry_is_refused() -> None:
    """With the word that builds it."""
    bare = BootImage(Path("app.elf"), (), {"kvm": 1}, {"name": "app"})
    with pytest.raises(ImageError, match="no entry for linux, only for kvm; build it with --for"):
        booting.boot(bare, Paper())


@pytest.mark.parametrize(("reasons", "says"), [
    ({}, "platform kvm: it works here and is the best of kvm, linux"),
    ({"platform.kvm": "no /dev/kvm"}, "platform linux: not kvm: no /dev/kvm")])
def test_auto_takes_the_first_that_works_and_says_why(
        monkeypatch: pytest.MonkeyPatch, reasons: dict[str, str], says: str) -> None:
    """The one line that ``unikit run`` prints."""
    monkeypatch.setattr(api, "probe", lambda record: reasons.get(record.id))
    assert booting.choose_platform(["kvm", "linux"])[1] == says


def test_where_nothing_works_every_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should have to try one after the other."""
    monkeypatch.setattr(api, "probe", lambda record: f"{record.id} is ill")
    with pytest.raises(PlatformError, match=r"not kvm: platform.kvm is ill; not linux: platform"):
        booting.choose_platform(["kvm", "linux"])
    with pytest.raises(PlatformError, match="none of them is known"):
        booting.choose_platform(["xen"])
    with pytest.raises(PlatformError, match=r"platform.paper does not work here: platform.paper"):
        boot()
