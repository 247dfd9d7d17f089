"""Same stem everywhere: source, record, class, extension, symbol, entry point and test."""

from __future__ import annotations

import re

import pytest
from law_tree import ROOT, UNIKIT

from unikit import registry
from unikit.component import Component

pytestmark = pytest.mark.fast

BUILT_IN = [registry.find(entry.id) for entry in registry.entries().values()
            if entry.distribution == registry.DISTRIBUTION
            and entry.id not in registry.broken()]
components = pytest.mark.parametrize("record", BUILT_IN, ids=lambda record: record.id)


def test_every_built_in_record_loads() -> None:
    """An entry point that does not load is a component nobody can choose."""
    own = {name: why for name, why in registry.broken().items()
           if registry.entries()[name].distribution == registry.DISTRIBUTION}
    assert not own


@components
def test_class_is_the_stem(record: type[Component]) -> None:
    """``alloc.tlsf`` is ``Tlsf``; a reader must be able to guess the name."""
    assert record.__name__.lower() == record.stem().replace("_", "")


@components
def test_module_is_the_stem(record: type[Component]) -> None:
    """``alloc.tlsf`` is described in ``alloc/tlsf.py`` or ``alloc/tlsf/__init__.py``."""
    parts = record.__module__.split(".")
    assert parts[-1] == record.stem()
    folder = {"netif": "net", "console": "platform"}.get(record.domain(), record.domain())
    assert parts[1] == folder


@components
def test_sources_carry_the_stem(record: type[Component]) -> None:
    """The first source is ``<stem>.c`` or lies in the folder of that name."""
    for path in record.source_files():
        assert path.is_file(), f"{record.id}: there is no {path}"
    if record.sources:
        first = record.source_files()[0]
        assert first.stem == record.stem() or record.stem() in first.parts


@components
def test_symbol_is_in_the_source(record: type[Component]) -> None:
    """The one symbol is defined by exactly one of the sources, with the id of the record."""
    if not record.sources:
        pytest.skip("Python alone")
    pattern = re.compile(rf"const struct kit_{record.domain()}_component\s+{record.symbol()}\b")
    defining = [path for path in record.source_files() if pattern.search(path.read_text())]
    assert len(defining) == 1
    assert f'"{record.id}"' in defining[0].read_text()


@components
def test_a_test_of_that_stem_exists(record: type[Component]) -> None:
    """``alloc.tlsf`` has ``tests/alloc/test_tlsf.py``."""
    module = (UNIKIT.parent / record.__module__.replace(".", "/")).relative_to(UNIKIT)
    places = [f"tests/{module.parent}/test_{record.stem()}.py",
              f"tests/{record.domain()}/test_{record.stem()}.py",
              f"tests/{module}/test_{record.stem()}.py",
              f"tests/{module.parts[0]}/test_{record.domain()}_{record.stem()}.py"]
    found = any((ROOT / place).exists() for place in places) or \
        any((ROOT / "tests" / module).glob("test_*.py"))
    assert found, f"none of {places}"


def test_test_files_have_names_of_their_own() -> None:
    """Two modules of one name, helpers included, cannot be imported in one run."""
    names = [path.name for folder in ("tests", "benchmarks")
             for path in (ROOT / folder).rglob("*.py")
             if path.name not in ("conftest.py", "__init__.py") and "plugin" not in path.parts]
    assert sorted(names) == sorted(set(names))
