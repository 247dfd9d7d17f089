"""Finding components: one door for all, and nobody can take the others down."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from unikit import registry
from unikit.component import Component, component
from unikit.errors import CompositionError, NotFound

pytestmark = pytest.mark.fast


@component
class First(Component):
    """A component."""

    id = "alloc.first"


@component
class Second(Component):
    """Another one."""

    id = "sched.second"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start and leave with an empty cache, and without the caller's wish about plug-ins."""
    monkeypatch.delenv("UNIKIT_NO_PLUGINS", raising=False)
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "cache"))
    registry.clear()
    yield
    registry.clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that distributions are installed: (name, id, target) each."""
    module = types.ModuleType("fake_components")
    module.First, module.Second = First, Second  # type: ignore[attr-defined]
    module.Number, module.Plain = 7, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_components", module)

    def install(*rows: tuple[str | None, str, str]) -> None:
        points = []
        for distribution, name, target in rows:
            dist = types.SimpleNamespace(name=distribution) if distribution else None
            point = metadata.EntryPoint(name, target, registry.GROUP)
            object.__setattr__(point, "dist", dist) if dist else None
            points.append(point)
        monkeypatch.setattr(metadata, "entry_points", lambda group: points)
        registry.clear()

    return install


OURS = ("unikit-os", "alloc.first", "fake_components:First")


def test_finds_by_id_and_by_bare_name(installed: Callable[..., None]) -> None:
    """``alloc.first`` and, where the domain is known, ``first``."""
    installed(OURS)
    assert registry.find("alloc.first") is First
    assert registry.find("first", "alloc") is First
    assert registry.find("alloc.first", "alloc") is First


def test_an_unknown_name_lists_what_there_is(installed: Callable[..., None]) -> None:
    """The answer to a typing mistake is the list of names, of that domain alone."""
    installed(OURS, ("unikit-os", "sched.second", "fake_components:Second"))
    with pytest.raises(NotFound, match=r"no component 'alloc.frist'; known: first$"):
        registry.find("frist", "alloc")
    with pytest.raises(NotFound, match="known: none$"):
        registry.find("net.mini")
    with pytest.raises(LookupError):
        registry.find("frist")


def test_components_are_sorted_and_can_be_limited_to_a_domain(
        installed: Callable[..., None]) -> None:
    """Order is that of the ids, whatever the installation order was."""
    installed(("unikit-os", "sched.second", "fake_components:Second"), OURS)
    assert registry.components() == [First, Second]
    assert registry.components("sched") == [Second]
    assert registry.components("net") == []
    assert list(registry.entries()) == ["alloc.first", "sched.second"]


def test_two_distributions_that_claim_one_id_are_both_named(
        installed: Callable[..., None]) -> None:
    """Neither may win silently: which code runs must never depend on the order of a scan."""
    installed(OURS, ("rival", "alloc.first", "rival_components:First"),
              ("third", "alloc.first", "third:First"))
    with pytest.raises(CompositionError) as caught:
        registry.entries()
    assert len(caught.value.problems) == 2
    for word in ("alloc.first", "unikit-os", "rival", "fake_components:First",
                 "rival_components:First", "uninstall one"):
        assert word in caught.value.problems[0]


def test_one_distribution_seen_twice_is_no_conflict(installed: Callable[..., None]) -> None:
    """An editable installation beside its source tree shows the same entry point twice."""
    installed(OURS, OURS)
    assert registry.find("alloc.first") is First


def test_one_distribution_with_two_targets_for_one_id_is_a_conflict(
        installed: Callable[..., None]) -> None:
    """Same distribution, different class: an author's mistake, which must show."""
    installed(OURS, ("unikit-os", "alloc.first", "fake_components:Second"))
    with pytest.raises(CompositionError, match="fake_components:Second"):
        registry.entries()


@pytest.mark.parametrize(("target", "reason"), [
    ("no_such_module:First", "ModuleNotFoundError"),
    ("fake_components:Missing", "AttributeError"),
    ("fake_components:Number", "is not a component record"),
    ("fake_components:Plain", "is not a component record"),
    ("fake_components:First", "its id is 'alloc.first', its entry point says 'alloc.other'"),
])
def test_a_broken_plugin_is_listed_and_the_others_work(
        installed: Callable[..., None], target: str, reason: str) -> None:
    """One bad distribution costs its own components only, and says why."""
    installed(OURS, ("bad", "alloc.other", target))
    assert registry.components() == [First]
    assert list(registry.broken()) == ["alloc.other"]
    assert reason in registry.broken()["alloc.other"]
    with pytest.raises(CompositionError, match=r"alloc.other \(from bad\) cannot be loaded"):
        registry.find("other", "alloc")


def test_a_plugin_that_raises_anything_at_import_is_contained(
        installed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a foreign module does at import, ours load."""
    (tmp_path / "raising_plugin.py").write_text("raise ZeroDivisionError('at import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(OURS, ("bad", "alloc.bad", "raising_plugin:Bad"))
    assert registry.broken() == {"alloc.bad": "ZeroDivisionError: at import"}
    assert registry.find("alloc.first") is First


def test_a_plugin_that_exits_at_import_is_contained(
        installed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sys.exit`` at module level is SystemExit, which is no Exception."""
    (tmp_path / "exiting_plugin.py").write_text("import sys\nsys.exit('bye')\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(OURS, ("bad", "alloc.bad", "exiting_plugin:Bad"))
    assert registry.broken() == {"alloc.bad": "SystemExit: bye"}


def test_no_plugins_leaves_other_distributions_out(
        installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to find out whether a plug-in is to blame, conflicts included."""
    installed(OURS, ("rival", "alloc.first", "rival:First"),
              ("other", "sched.second", "fake_components:Second"))
    monkeypatch.setenv("UNIKIT_NO_PLUGINS", "1")
    assert list(registry.entries()) == ["alloc.first"]
    monkeypatch.setenv("UNIKIT_NO_PLUGINS", "0")
    registry.clear()
    with pytest.raises(CompositionError):
        registry.entries()


def test_an_entry_point_without_distribution_is_taken(installed: Callable[..., None]) -> None:
    """Some importers give no distribution; its name is then unknown, not an error."""
    installed(OURS, (None, "sched.second", "fake_components:Second"))
    assert registry.entries()["sched.second"].distribution == "?"
    assert registry.find("sched.second") is Second


def test_a_source_tree_that_is_not_installed_reads_its_own_pyproject(
        installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A checkout on PYTHONPATH has the same components as an installation of it."""
    installed()
    package = tmp_path / "unikit"
    package.mkdir()
    project = tmp_path / "pyproject.toml"
    points = '[project.entry-points."unikit.components"]\n"alloc.first" = "fake_components:First"\n'
    monkeypatch.setattr(registry, "__file__", str(package / "registry.py"))
    for text, found in [('[project]\nname = "unikit-os"\n' + points, [First]),
                        ('[project]\nname = "unikit-os"\n', []),
                        ('[project]\nname = "foreign"\n' + points, []),
                        ("[tool.x]\n", []), (None, [])]:
        registry.clear()
        project.unlink() if text is None else project.write_text(text)
        assert registry.components() == found


def test_the_scan_happens_once(installed: Callable[..., None],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan costs milliseconds; composing asks for components many times."""
    installed(OURS)
    registry.find("alloc.first")

    def again(group: str) -> Any:
        raise AssertionError("scanned twice")

    monkeypatch.setattr(metadata, "entry_points", again)
    assert registry.components("alloc") == [First]


def test_importing_unikit_scans_nothing() -> None:
    """``import unikit`` must stay cheap: no metadata, no extension, no subprocess module."""
    code = ("import sys, unikit; bad = [name for name in ('importlib.metadata', 'cffi', "
            "'subprocess', 'unikit._abi') if name in sys.modules]; sys.exit(' '.join(bad) or 0)")
    root = Path(registry.__file__).parents[1]
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=root, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_scan_is_kept_until_a_distribution_comes_or_goes(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A short command does not read every distribution's metadata, and never misses a new one."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    calls = []
    real = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points",
                        lambda **kind: calls.append(kind) or real(**kind))
    registry.entries()
    registry.clear()
    before = set(registry.entries())
    assert len(calls) == 1
    info = place / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unikit.components]\nalloc.thing = thing:Thing\n")
    registry.clear()
    assert set(registry.entries()) - before == {"alloc.thing"}
    assert len(calls) == 2


def test_a_damaged_scan_is_made_anew(tmp_path: Path) -> None:
    """Whatever stands in the cache, the answer is right."""
    expected = registry.entries()
    note, = (tmp_path / "cache").glob("components-*.json")
    for text in ("", "{", "[]", '{"state": 1}', '{"state": [], "entries": [[1]]}'):
        note.write_text(text)
        registry.clear()
        assert registry.entries() == expected
