"""The resolver: one plan, or every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from unikit.component import Component, Option, component, option
from unikit.errors import CompositionError
from unikit.image.resolve import Wish, resolve

pytestmark = pytest.mark.fast


@component
class Odd(Component):
    """An allocator for another version of the interface."""

    id = "alloc.odd"
    abi = 99
    requires = ("net",)


@component
class Outside(Component):
    """A thing that stays on the host."""

    id = "netif.outside"
    side = "host"


@component
class Sized(Component):
    """An allocator with an option."""

    id = "alloc.sized"
    pool: int | str = option(0, "bytes", kind="size", maximum=1 << 20)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "main.c"
    path.write_text("int init_application(void) { return 0; }\n")
    return path


def problems(wish: Wish) -> str:
    with pytest.raises(CompositionError) as caught:
        resolve(wish)
    return "\n".join(caught.value.problems)


def test_defaults_give_a_plan_with_allocator_and_scheduler(source: Path) -> None:
    """An application that says nothing gets tlsf and loop, and no network."""
    plan = resolve(Wish("app", [source], sched="auto"))
    assert plan.alloc.id == "alloc.tlsf"
    assert plan.sched is not None
    assert plan.sched.id == "sched.loop"
    assert plan.net is None
    assert plan.sources == (source,)


def test_an_application_without_events_gets_no_scheduler(source: Path) -> None:
    """It ends when init_application returns; a network, or a wish, brings the main loop back."""
    assert resolve(Wish("app", [source], sched="auto", events=False)).sched is None
    assert resolve(Wish("app", [source], sched=None, events=False)).sched is None
    for more in ({"sched": "auto", "net": "mini"}, {"sched": "loop"}):
        plan = resolve(Wish("app", [source], events=False, **more))
        assert plan.sched is not None
        assert plan.sched.id == "sched.loop"
    assert "needs a scheduler" in problems(Wish("app", [source], sched=None))


def test_all_problems_are_reported_at_once(source: Path, tmp_path: Path) -> None:
    """A person mends a composition in one round, so nothing stops at the first mistake."""
    said = problems(Wish("app", [source, tmp_path / "none.c", "x.py"], alloc="nosuch",
                         netif=Outside(), files=tmp_path / "nowhere", optimise="fast",
                         platforms=["vax"], settings={"alloc.tlsf.colour": "red"}))
    for part in ("alloc.nosuch", "there is no such file", "allowed endings", "stays on the host",
                 "is not a folder", "'fast'", "'vax'", "alloc.tlsf.colour"):
        assert part in said


def test_option_out_of_range_names_component_option_and_what_is_allowed(source: Path) -> None:
    """The message alone must be enough to mend the value."""
    said = problems(Wish("app", [source], alloc=Sized, settings={"alloc.sized.pool": "2M"}))
    assert "alloc.sized.pool: '2M' is out of range" in said
    assert "1048576" in said


def test_settings_override_the_record(source: Path) -> None:
    """--set wins over what the program chose."""
    plan = resolve(Wish("app", [source], alloc=Sized(pool="64K"), sched="loop",
                        settings={"alloc.sized.pool": "128K"}))
    assert plan.alloc.encoded() == [128 << 10]


def test_other_interface_version_and_missing_requirement_are_refused(source: Path) -> None:
    """A component for another ABI must never be linked."""
    said = problems(Wish("app", [source], alloc=Odd))
    assert "version 99 of the alloc interface" in said
    assert "alloc.odd needs net" in said


def test_wrong_domain_is_refused(source: Path) -> None:
    """An allocator is no scheduler."""
    assert "is a alloc component" in problems(Wish("app", [source], sched=Sized))


def test_no_allocator_is_refused(source: Path) -> None:
    """None means none, and an image cannot live without memory."""
    assert "an image needs an allocator" in problems(Wish("app", [source], alloc=None))


def test_application_options_are_checked(source: Path) -> None:
    """An application's options obey the same rules as a component's."""
    spec = Option("port", 80, "TCP port", minimum=1, maximum=65535)
    said = problems(Wish("app", [source], app_options=[spec],
                         settings={"app.app.port": "70000"}))
    assert "app.app.port: '70000' is out of range" in said
    plan = resolve(Wish("app", [source], app_options=[spec], settings={"app.port": "81"}))
    assert plan.app_options[0].value == 81


def test_packed_files_are_sorted_and_hidden_ones_left_out(source: Path, tmp_path: Path) -> None:
    """The image finds files by binary search over path bytes."""
    site = tmp_path / "site"
    (site / "b").mkdir(parents=True)
    for name in ("z.txt", "a.html", "b/c.css", ".secret"):
        (site / name).write_text(name)
    plan = resolve(Wish("app", [source], files=site))
    assert [file.path for file in plan.files] == ["a.html", "b/c.css", "z.txt"]
    assert plan.files[0].media_type == "text/html; charset=utf-8"


def test_several_consoles_bring_the_tee(source: Path) -> None:
    """Two consoles are written to both."""
    plan = resolve(Wish("app", [source], consoles=["platform", "buffer"]))
    assert [part.id for part in plan.consoles] == ["console.platform", "console.buffer",
                                                   "console.tee"]


def test_plan_is_the_same_text_for_the_same_wish(source: Path) -> None:
    """Reproducible images start with reproducible plans."""
    assert resolve(Wish("app", [source])).json() == resolve(Wish("app", [source])).json()
