"""Allocators on allocators: composing, settings, plans, and images that are made so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unikit import registry
from unikit.alloc import Bump, Firstfit, Layer, Tlsf
from unikit.cli import main
from unikit.component import Component, component, option
from unikit.errors import CompositionError
from unikit.image import Image, emit

HERE = Path(__file__).resolve().parent


@component
class Count(Layer):
    """Counts requests and answers only so many."""

    id = "alloc.count"
    features = frozenset({"layer", "reuses", "bounded"})
    sources = ("layer/count.c",)

    most: int = option(1000, "requests to answer")


@component
class Quota(Layer):
    """The same under another name."""

    id = "alloc.quota"
    features = frozenset({"layer", "reuses", "bounded", "scopes"})
    alone = frozenset({"scopes"})
    sources = ("layer/quota.c",)

    most: int = option(1000, "requests to answer", when="boot")


@component
class Picky(Layer):
    """Stands on what can be walked."""

    id = "alloc.picky"
    below = frozenset({"walk", "owns"})


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the layers of this file be found by name."""
    find = registry.find
    own: dict[str, type[Component]] = {each.stem(): each for each in (Count, Quota, Picky)}
    monkeypatch.setattr(registry, "find", lambda name, domain=None: own.get(
        name.removeprefix("alloc.")) or find(name, domain))


def image(alloc: Any, **settings: object) -> Image:
    return Image("app", [HERE / "layer/main.c"], alloc=alloc, events=False, platforms=["linux"],
                 settings={key.replace("__", "."): value for key, value in settings.items()})


def ids(alloc: Any, **settings: object) -> list[str]:
    return [each.id for each in image(alloc, **settings).plan.allocators()]


def problems(alloc: Any, **settings: object) -> list[str]:
    with pytest.raises(CompositionError) as caught:
        print(image(alloc, **settings).plan)
    return list(caught.value.problems)


fast = pytest.mark.fast


@fast
@pytest.mark.parametrize("alloc", [
    "count,quota,bump", ["count", "quota", "bump"], [Count, Quota(), Bump],
    Count(Quota(Bump())), Count(Quota(Bump)), Count(Quota("bump")), ["count", Quota(Bump())]])
def test_every_way_to_say_it_means_the_same(alloc: Any) -> None:
    """From the outside in, by names, classes, records, and nested."""
    assert ids(alloc) == ["alloc.count", "alloc.quota", "alloc.bump"]


@fast
def test_a_layer_alone_stands_on_the_default_allocator() -> None:
    """``Guard()`` and ``--alloc guard`` need not name what everybody takes anyway."""
    assert ids("count") == ids(Count) == ids(Count()) == ["alloc.count", "alloc.tlsf"]
    assert [each.id for each in Count().layers()] == ["alloc.count", "alloc.tlsf"]


@fast
def test_features_of_a_record_are_those_it_has_over_what_is_below() -> None:
    """A requirement must not be met by a promise that nobody can keep."""
    assert Count(Tlsf()).features == {"layer", "reuses", "bounded"}
    assert Count(Bump()).features == {"layer", "bounded"}
    assert Quota(Tlsf()).features == {"layer", "reuses", "bounded", "scopes"}
    with pytest.raises(CompositionError) as caught:
        print(Image("app", [HERE / "layer/main.c"], alloc=Count(Tlsf()), events=False,
                    needs=["alloc:walk"]).plan)
    assert "the application app needs alloc:walk; choose alloc=" in caught.value.problems[0]


@fast
def test_settings_reach_each_layer() -> None:
    """``--set`` names the component, wherever in the stack it is."""
    plan = image("count,firstfit", alloc__count__most=7, alloc__firstfit__blocks=64).plan
    outer, inner = plan.allocators()
    assert (outer.encoded(), inner.encoded()) == ([7], [64])
    assert [each.id for each in image("count", alloc__count__inner="quota",
                                      alloc__quota__inner="bump").plan.allocators()] == [
        "alloc.count", "alloc.quota", "alloc.bump"]


@fast
@pytest.mark.parametrize(("alloc", "settings", "says"), [
    ("tlsf,count", {}, "alloc.tlsf: is no layer and stands on nothing; name it last, behind the "
                       "layers"),
    ("count,quota,count,tlsf", {}, "alloc.count: is there twice; a layer cannot stand on itself"),
    ("count", {"alloc.count.inner": "quota", "alloc.quota.inner": "count"},
     "alloc.count: is there twice; a layer cannot stand on itself"),
    ([Count(Bump()), "tlsf"], {}, "alloc.count: is to stand on alloc.bump and on tlsf; say one of "
                                  "the two"),
    ("count,tlsf", {"alloc.count.inner": "bump"},
     "alloc.count: is to stand on bump and on tlsf; say one of the two"),
    (Picky(Firstfit()), {"alloc.picky.inner": "bump"},
     "alloc.picky: needs an allocator with owns below it; alloc.bump has "),
])
def test_what_cannot_stand_is_refused_in_one_line(alloc: Any, settings: dict[str, str],
                                                  says: str) -> None:
    """The message names who cannot stand where."""
    with pytest.raises(CompositionError) as caught:
        print(Image("app", [HERE / "layer/main.c"], alloc=alloc, events=False,
                    settings=settings).plan)
    assert says in caught.value.problems[0]


@fast
def test_a_layer_without_anything_below_is_refused() -> None:
    """«none» below a layer is not the default; no layer works on air."""
    for alloc in ("count,none", ["count", None]):
        assert problems(alloc)[0].startswith("alloc.count: needs an allocator to stand on; "
                                             "choose one of ")
    assert "an image needs an allocator" in problems([])[0]
    assert "an image needs an allocator" in problems("none")[0]


@fast
def test_a_record_refuses_what_it_cannot_stand_on() -> None:
    """Records are checked where they are made, with or without an image."""
    with pytest.raises(CompositionError, match="needs an allocator with owns below it"):
        Picky(Bump())
    with pytest.raises(CompositionError, match="alloc.count: is there twice"):
        Count(Quota(Count()))
    with pytest.raises(CompositionError, match="alloc.count.inner: 3 is not allowed; give an "
                                               "alloc component or its name"):
        Count(3)
    with pytest.raises(CompositionError, match="alloc.count.inner: there is no component "
                                               "'alloc.nosuch'"):
        Count("nosuch")


@fast
def test_a_layer_says_so_by_its_class() -> None:
    """The feature without the option, or the option without the feature, would never work."""
    for base, words in ((Layer, frozenset({"reuses"})), (Tlsf.__base__, frozenset({"layer"}))):
        with pytest.raises(CompositionError, match="feature layer derives from Layer"):
            type("Wrong", (base,), {"features": words, "id": "alloc.wrong"})


@fast
def test_plan_note_and_inspection_show_the_layers() -> None:
    """What an image is made of must be readable from it in order."""
    plan = image("count,quota,bump", alloc__count__most=5).plan
    assert plan.note()["alloc"] == ["alloc.count", "alloc.quota", "alloc.bump"]
    assert plan.note()["components"]["alloc.count"] == {"most": 5}
    lines = [line for line in plan.lines() if line.startswith("alloc ")]
    assert lines == ["alloc      alloc.bump",
                     "alloc      alloc.quota over alloc.bump  most=1000 (boot)",
                     "alloc      alloc.count over alloc.quota  most=5"]
    assert "alloc" not in image("bump").plan.note()


@fast
def test_the_emitted_text_lists_them_from_the_outside_in() -> None:
    """The runtime opens the last and wraps it in the others."""
    text = emit.composition(image("count,quota,bump").plan)
    table = text[text.index("kit_alloc_choice alloc_table[]"):].splitlines()[1:4]
    assert [line.split(",")[0].strip() for line in table] == [
        "{&kit_alloc_count", "{&kit_alloc_quota", "{&kit_alloc_bump"]
    assert "alloc_count = 3" in text
    assert '"alloc.quota.most"' in text


@pytest.mark.parametrize(("alloc", "settings", "answered"), [
    ("count,tlsf", {"alloc.count.most": 12}, 12),
    ("count,quota,tlsf", {"alloc.count.most": 12, "alloc.quota.most": 9}, 8),  # count's own block
    ("quota,count,bump", {"alloc.count.most": 12, "alloc.quota.most": 90}, 11)])
def test_an_image_stands_on_its_layers(alloc: str, settings: dict[str, int], answered: int) -> None:
    """Each request passes every layer, and each layer has its own options."""
    made = Image("app", [HERE / "layer/main.c"], alloc=alloc, events=False, platforms=["linux"],
                 settings=settings)
    with made.boot("linux") as machine:
        assert machine.wait(10) == 0
        assert f"answered {answered}" in machine.console.text


def test_a_layer_that_does_not_start_is_named() -> None:
    """The layer takes its state from below, which may have none left."""
    made = Image("app", [HERE / "layer/main.c"], alloc="count,quota,tlsf", events=False,
                 platforms=["linux"], settings={"alloc.quota.most": 0})
    with made.boot("linux") as machine:
        assert machine.wait(10) == 2
        assert "cannot start alloc.count: too little memory" in machine.console.text


def test_inspect_shows_the_order(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON keeps a list, people see a sentence."""
    path = str(image("count,bump").build())
    assert main(["inspect", path]) == 0
    assert "alloc.count over alloc.bump" in capsys.readouterr().out
    assert main(["inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["alloc"] == ["alloc.count", "alloc.bump"]
