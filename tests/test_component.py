"""Records: options are parsed, checked and encoded; a wrong record says all that is wrong."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikit.component import Component, Option, component, option, parse_duration, parse_size
from unikit.errors import CompositionError

pytestmark = pytest.mark.fast


@component
class Sample(Component):
    """One option of every kind."""

    id = "alloc.sample"
    sources = ("sample.c", "inner.c")

    count: int = option(3, "how many", minimum=1, maximum=10, unit="blocks")
    pool: int | str = option("64K", "bytes", kind="size", minimum=4096)
    delay: int | str = option("2ms", "pause", kind="duration", maximum=10**9)
    strict: bool = option(False, "refuse", kind="bool")
    policy: str = option("first", "which block", kind="choice", choices=("first", "best"))
    gateway: str = option("0.0.0.0", "next hop", kind="address")
    address: str = option("", "own address", kind="prefix", when="boot")
    label: str = option("", "for people", kind="text")


# ---- values -----------------------------------------------------------------------------------

def test_defaults_are_normal_forms() -> None:
    """A record built without arguments holds numbers, not the text its author wrote."""
    record = Sample()
    assert (record.count, record.pool, record.delay) == (3, 65536, 2_000_000)
    assert (record.strict, record.policy, record.label) == (False, "first", "")


@pytest.mark.parametrize(("field", "given_value", "kept"), [
    ("count", "0x5", 5), ("count", 10, 10),
    ("pool", "16M", 16 << 20), ("pool", "1GiB", 1 << 30), ("pool", "8 kb", 8192),
    ("pool", 4096, 4096), ("pool", "2T", 2 << 40),
    ("delay", "250us", 250_000), ("delay", "0.5s", 500_000_000), ("delay", 7, 7),
    ("delay", "9ns", 9),
    ("strict", True, True), ("strict", "yes", True), ("strict", "Off", False),
    ("strict", "0", False), ("strict", 1, True),
    ("policy", "best", "best"),
    ("gateway", "10.0.0.1", "10.0.0.1"), ("gateway", 167772161, "10.0.0.1"),
    ("address", "10.0.0.2/24", "10.0.0.2/24"), ("address", None, ""), ("address", "", ""),
    ("label", "a b", "a b"),
])
def test_values_are_taken_as_people_write_them(field: str, given_value: Any, kept: Any) -> None:
    """Every spelling that the documentation shows ends in one normal form."""
    assert getattr(Sample(**{field: given_value}), field) == kept


@pytest.mark.parametrize(("field", "value", "says"), [
    ("count", 0, "out of range"), ("count", 11, "in 1...10 (blocks)"), ("count", "many", "whole"),
    ("count", True, "whole number"), ("count", 2.5, "whole number"), ("count", "", "whole number"),
    ("pool", "16Q", "a size such as"), ("pool", -1, "a size such as"), ("pool", 12, "in 4096..."),
    ("pool", None, "a size such as"), ("pool", True, "a size such as"),
    ("delay", "2 minutes", "a time such as"), ("delay", -1, "a time such as"),
    ("delay", "2s", "in ...1000000000"), ("delay", False, "a time such as"),
    ("strict", "perhaps", "true or false"), ("strict", None, "true or false"),
    ("policy", "worst", "one of first, best"), ("policy", 0, "one of first, best"),
    ("gateway", "10.0.0", "an IPv4 address"), ("gateway", "fe80::1", "an IPv4 address"),
    ("address", "10.0.0.2", "an IPv4 prefix"), ("address", "10.0.0.2/33", "an IPv4 prefix"),
    ("label", 3, "text"), ("label", "a\0b", "text"),
])
def test_values_out_of_bounds_are_refused_with_what_is_allowed(
        field: str, value: Any, says: str) -> None:
    """The message names component, option and value, and says what would be right."""
    with pytest.raises(CompositionError) as caught:
        Sample(**{field: value})
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert problem.startswith(f"alloc.sample.{field}: {value!r} is ")
    assert says in problem


def test_all_wrong_values_are_reported_at_once() -> None:
    """Nobody should have to fix ten options in ten runs."""
    with pytest.raises(CompositionError) as caught:
        Sample(count=0, pool="x", policy="worst")
    assert len(caught.value.problems) == 3


def test_records_are_frozen_and_compare_by_value() -> None:
    """A choice can be kept, hashed and compared; it cannot change behind a plan's back."""
    assert Sample(pool="64K") == Sample()
    assert hash(Sample(count=4)) == hash(Sample(count="4"))  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample().count = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        Sample(4)  # type: ignore[call-arg,misc]


def test_c_gets_one_word_per_option_in_order_of_declaration() -> None:
    """``text`` stays on the host; the rest follows rt/opt.h."""
    record = Sample(policy="best", strict=True, gateway="10.0.0.1", address="10.0.0.2/24")
    assert record.encoded() == [3, 65536, 2_000_000, 1, 1, 0x0A000001, 24 << 32 | 0x0A000002]
    assert Sample().encoded()[-1] == 0


def test_changed_names_only_what_differs_from_the_default() -> None:
    """Plans are shown without noise: a default spelled differently is still the default."""
    assert Sample(pool=65536).changed() == {}
    assert Sample(pool="1M", label="x").changed() == {"pool": 1 << 20, "label": "x"}


@pytest.mark.parametrize(("spec", "text"), [
    (Option("a", 0, "d"), "a whole number"),
    (Option("a", 0, "d", minimum=2), "a whole number in 2..."),
    (Option("a", 0, "d", maximum=9, unit="bytes"), "a whole number in ...9 (bytes)"),
    (Option("a", "", "d", kind="text"), "text"),
])
def test_allowed_says_the_range(spec: Option, text: str) -> None:
    """The words stand in error messages and in the reference."""
    assert spec.allowed() == text


@given(st.integers(0, 2**63))
def test_sizes_survive_every_spelling(size: int) -> None:
    """Bytes as a number and as its decimal text mean the same."""
    assert parse_size(size) == parse_size(str(size)) == size


@given(st.integers(0, 2**20), st.sampled_from("KMGT"))
def test_size_suffixes_are_powers_of_1024(count: int, suffix: str) -> None:
    """An independent reckoning of what the suffix means."""
    power = 1 + "KMGT".index(suffix)
    assert parse_size(f"{count}{suffix.lower()}iB") == count * 1024**power


@pytest.mark.parametrize("value", ["", "M", "1.5M", "-1", "1 M B", None, 1.0, True])
def test_what_is_no_size(value: Any) -> None:
    """Half sizes and booleans are refused rather than guessed."""
    with pytest.raises(ValueError, match=r"not a size|negative"):
        parse_size(value)


@pytest.mark.parametrize("value", ["", "1", "1m", "-1s", "1 hour", None, 1.0, True])
def test_what_is_no_duration(value: Any) -> None:
    """A duration without a unit is ambiguous as text; as a number it is ns."""
    with pytest.raises(ValueError, match=r"not a duration"):
        parse_duration(value)
    with pytest.raises(ValueError, match="negative"):
        parse_duration(-1)


# ---- records ----------------------------------------------------------------------------------

def test_names_are_built_from_the_id() -> None:
    """Domain, stem, symbol and extension follow from ``alloc.sample`` alone."""
    assert (Sample.domain(), Sample.stem(), Sample.symbol()) == (
        "alloc", "sample", "kit_alloc_sample")
    assert [path.name for path in Sample.source_files()] == ["sample.c", "inner.c"]
    assert all(path.parent == Path(__file__).resolve().parent for path in Sample.source_files())
    assert [spec.name for spec in Sample.options] == [
        "count", "pool", "delay", "strict", "policy", "gateway", "address", "label"]


@pytest.mark.parametrize(("module", "extension"), [
    ("unikit.alloc.sample", "unikit.alloc._sample"),
    ("mypackage.sample", "mypackage._sample"),
    ("sample", "_sample"),
    ("mypackage.records", "mypackage.records._sample"),
])
def test_extension_lies_beside_the_module(module: str, extension: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """A component in a module and one in a package's ``__init__`` both find their extension."""
    monkeypatch.setattr(Sample, "__module__", module)
    assert Sample.extension() == extension


def make(doc: str | None = "It exists.", **attributes: Any) -> type[Component]:
    """Return a record class made from attributes, not decorated yet."""
    fields = {name: object for name, value in attributes.items()
              if isinstance(value, dataclasses.Field)}
    body = {"id": "alloc.made", "__doc__": doc, "__annotations__": fields, **attributes}
    return types.new_class("Made", (Component,), exec_body=lambda space: space.update(body))


@pytest.mark.parametrize(("attributes", "says"), [
    ({"id": "Tlsf"}, "must look like domain.name"),
    ({"id": "alloc."}, "must look like domain.name"),
    ({"id": "cooker.tlsf"}, "is no interface; known: alloc"),
    ({"doc": None}, "a docstring is missing"),
    ({"doc": ""}, "a docstring is missing"),
    ({"side": "both"}, "side is 'both'; allowed: image, host"),
    ({"abi": 0}, "abi is 0"),
    ({"abi": "1"}, "abi is '1'"),
    ({"bare": dataclasses.field(default=1)}, "bare: declare it with option()"),
    ({"o": option(1, "d", kind="colour")}, "kind 'colour'; allowed: int"),
    ({"o": option(1, "d", when="never")}, "when is 'never'; allowed: build, boot"),
    ({"o": option(1, "")}, "say what it does"),
    ({"o": option("x", "d")}, "default 'x' is not allowed"),
    ({"o": option(5, "d", maximum=4)}, "default 5 is out of range"),
])
def test_a_wrong_record_says_what_is_wrong(attributes: dict[str, Any], says: str) -> None:
    """The author of a component sees the mistake at import, with the class's name."""
    with pytest.raises(CompositionError) as caught:
        component(make(**attributes))
    assert any(says in problem for problem in caught.value.problems)
    assert all("Made" in problem for problem in caught.value.problems)


def test_all_mistakes_of_a_record_are_listed() -> None:
    """As for values: everything at once."""
    with pytest.raises(CompositionError) as caught:
        component(make(doc=None, id="x", abi=0, side="", o=option(1, "", when="")))
    assert len(caught.value.problems) >= 6


def test_options_are_inherited_in_order() -> None:
    """A component derived from another keeps its options in front; C relies on the order."""
    @component
    class More(Sample):
        """A further option."""

        id = "alloc.more"
        extra: int = option(1, "one more")

    assert [spec.name for spec in More.options][-1] == "extra"
    assert More(extra=2).encoded()[-1] == 2


def test_records_load_no_extension() -> None:
    """Reading what there is must cost an import at most."""
    before = {name for name in sys.modules if name.rpartition(".")[2].startswith("_sample")}
    Sample().encoded()
    assert {name for name in sys.modules if name.rpartition(".")[2].startswith("_sample")} == before


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), (0.5, 0.5), ("0.25", 0.25), (1, 1.0),
                                             ("100 %", 1.0), (0, 0.0)])
def test_ratio(text: Any, share: float) -> None:
    """A share is written as a number or in percent; C gets it in units of 2^-32."""
    spec = Option("loss", 0.0, "lost", "ratio")
    assert spec.parse(text) == share
    assert spec.encode(spec.parse(text)) == round(share * 2**32)


@pytest.mark.parametrize("value", ["", "x", 1.01, -0.1, "101%", None, True, "nan"])
def test_what_is_no_ratio(value: Any) -> None:
    """Nothing beyond all or less than nothing."""
    with pytest.raises(ValueError, match="give a share such as"):
        Option("loss", 0.0, "lost", "ratio").parse(value)
