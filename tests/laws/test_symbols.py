"""One global symbol per component, nothing but six names asked for, no writable state."""

from __future__ import annotations

from pathlib import Path

import pytest
from law_tree import (
    ALLOWED_UNDEFINED,
    UNIKIT,
    compile_plain,
    hosted,
    image_components,
    run,
    sections,
    symbols,
    tracked,
)

from unikit.component import Component

pytestmark = pytest.mark.fast

components = pytest.mark.parametrize("record", image_components(), ids=lambda record: record.id)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the objects of this run go."""
    return tmp_path_factory.mktemp("objects")


def joined(record: type[Component], folder: Path) -> tuple[Path, list[Path]]:
    """Return the component as one object, inner symbols local, and its single objects."""
    objects = [compile_plain(path, folder) for path in record.source_files()]
    whole = folder / f"{record.id}.o"
    run("ld", "-r", "-o", whole, *objects)
    if len(objects) > 1:
        run("objcopy", f"--keep-global-symbol={record.symbol()}", whole)
    return whole, objects


@components
def test_one_global_symbol(record: type[Component], folder: Path) -> None:
    """A second global name would collide when two components meet in one image."""
    whole, _ = joined(record, folder)
    exported = [name for kind, name in symbols(whole) if kind.isupper() and kind != "U"]
    assert exported == [record.symbol()]


@components
def test_only_six_names_are_undefined(record: type[Component], folder: Path) -> None:
    """Everything else must come through the environment and ops tables."""
    whole, _ = joined(record, folder)
    undefined = {name for kind, name in symbols(whole) if kind in "Uw"}
    assert undefined <= ALLOWED_UNDEFINED


@components
def test_inner_names_carry_the_stem_or_a_shared_prefix(record: type[Component],
                                                       folder: Path) -> None:
    """Functions shared between a component's files must not look like the public interface."""
    _, objects = joined(record, folder)
    for target in objects:
        inner = [name for kind, name in symbols(target)
                 if kind in "TDBRC" and name != record.symbol()]
        assert not [name for name in inner if name.startswith(f"kit_{record.domain()}_")]


def freestanding() -> list[Path]:
    """Return every C file of the layers 0 to 2 that is no hosted glue and no application."""
    return [path for path in tracked(".c")
            if not hosted(path) and "<unikit/app.h>" not in path.read_text()
            and path.relative_to(UNIKIT).parts[0] in ("rt", "alloc", "sched", "net", "platform")
            and (path.relative_to(UNIKIT).parts[0] != "platform" or "console" in path.parts)]


@pytest.mark.parametrize("source", freestanding(),
                         ids=lambda path: path.relative_to(UNIKIT).as_posix())
def test_no_writable_file_scope_state(source: Path, folder: Path) -> None:
    """Many instances live in one process only if all state lives in memory the caller passed."""
    found = sections(compile_plain(source, folder))
    writable = {name: size for name, size in found.items() if size
                and name.startswith((".data", ".bss", ".tdata", ".tbss", ".lbss", ".ldata"))
                and not name.startswith(".data.rel.ro")}
    assert not writable


def test_there_are_components_to_check() -> None:
    """An empty registry would make every test above pass without looking at anything."""
    if not image_components():
        pytest.skip("this tree has no components")
    assert {"alloc", "sched", "net"} <= {record.domain() for record in image_components()}
