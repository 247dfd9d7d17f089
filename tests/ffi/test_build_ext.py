"""Building extensions from pyproject.toml, for unikit and for third parties."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unikit.ffi import backend, build_ext, load

pytestmark = pytest.mark.fast
ROOT = Path(build_ext.__file__).parents[2]

RECORD = '''
from unikit.component import Component, component

@component
class Mine(Component):
    """A component of somebody else."""

    id = "alloc.mine"
    sources = ("mine.c", "inner.c")

@component
class Quiet(Component):
    """Python alone."""

    id = "alloc.quiet"
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a third party's project with two records; importable for the test only."""
    package = tmp_path / "foreign_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(RECORD)
    (package / "mine.c").write_text("")
    (package / "inner.c").write_text("")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("foreign_package")]:
        del sys.modules[name]


def write(project: Path, points: str, more: str = "") -> None:
    """Write the project's pyproject.toml with these entry points."""
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "foreign"\nversion = "1"\n'
        f'[project.entry-points."unikit.components"]\n{points}\n{more}')


def test_each_component_with_c_becomes_one_extension(project: Path) -> None:
    """Entry points decide; a record without sources needs no compiler."""
    write(project, '"alloc.mine" = "foreign_package.mine:Mine"\n'
                   '"alloc.quiet" = "foreign_package.mine:Quiet"')
    found = list(build_ext.extensions(project))
    assert [extension.name for extension in found] == ["foreign_package._mine"]
    sources = [Path(source).name for source in found[0].sources]
    assert sources == ["foreign_package._mine.c", "mine.c", "inner.c", "host.c"]


def test_all_sources_are_inside_the_project(project: Path) -> None:
    """setuptools refuses absolute paths, so unikit's own file is brought into the build folder."""
    write(project, '"alloc.mine" = "foreign_package.mine:Mine"')
    (extension,) = build_ext.extensions(project)
    assert extension.sources == ["build/cffi/foreign_package._mine.c", "foreign_package/mine.c",
                                 "foreign_package/inner.c", "build/cffi/host.c"]
    assert (project / "build/cffi/host.c").read_text() == (ROOT / "unikit/rt/host.c").read_text()


def test_a_changed_header_rebuilds(project: Path) -> None:
    """Every header of unikit is a dependency, or an editable installation goes stale."""
    write(project, '"alloc.mine" = "foreign_package.mine:Mine"')
    (extension,) = build_ext.extensions(project)
    assert str(ROOT / "unikit/alloc/alloc.h") in extension.depends
    assert any(name.endswith("inner.c") for name in extension.depends)


def test_the_generated_source_includes_the_interfaces(project: Path) -> None:
    """It declares the component's one symbol and the binding of panics."""
    write(project, '"alloc.mine" = "foreign_package.mine:Mine"')
    list(build_ext.extensions(project))
    text = (project / "build/cffi/foreign_package._mine.c").read_text()
    assert "#include <unikit/alloc/alloc.h>" in text
    assert "extern const struct kit_alloc_component kit_alloc_mine;" in text
    assert "kit_host_bind" in text


@pytest.mark.parametrize(("target", "error", "says"), [
    ("foreign_package.mine:Component.domain", AttributeError, "Component.domain"),
    ("foreign_package.mine:component", TypeError, "is not a component record"),
    ("foreign_package.mine:Quiet", ValueError, "says its id is 'alloc.quiet'"),
    ("foreign_package.other:Mine", ModuleNotFoundError, "foreign_package.other"),
])
def test_a_wrong_entry_point_stops_the_build(project: Path, target: str, error: type[Exception],
                                             says: str) -> None:
    """Better no wheel than a wheel whose component cannot be found."""
    write(project, f'"alloc.mine" = "{target}"')
    with pytest.raises(error, match=says):
        list(build_ext.extensions(project))


def test_glue_without_marks_stops_the_build(project: Path) -> None:
    """A header that marks nothing is named."""
    (project / "foreign_package/glue.h").write_text("int x;\n")
    write(project, "", '[tool.unikit.extensions]\n"foreign_package._glue" = '
                       '{headers = ["foreign_package/glue.h"], sources = []}')
    with pytest.raises(ValueError, match=r"glue\.h: no region"):
        list(build_ext.extensions(project))


def test_glue_is_built_in_place_with_guards_and_defines(
        project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python3 -m unikit.ffi.build_ext --inplace`` is all a checkout needs."""
    (project / "foreign_package/glue.h").write_text(
        "/* cdef: begin */\nint kit_glue_answer(void);\n/* cdef: end */\n")
    (project / "foreign_package/glue.c").write_text(
        "#include <foreign_package/glue.h>\nint kit_glue_answer(void) { return ANSWER; }\n")
    table = ('headers = ["foreign_package/glue.h"], sources = ["foreign_package/glue.c"], '
             'libraries = ["m"]')
    write(project, "", "[tool.unikit.extensions]\n"
          f'"foreign_package._one" = {{{table}, defines = {{ANSWER = 41}}}}\n'
          f'"foreign_package._two" = {{{table}, defines = {{ANSWER = 42}}, guard = true}}\n')
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["build_ext", "--inplace"])
    build_ext.main()
    for name, answer in (("_one", 41), ("_two", 42)):
        assert list((project / "foreign_package").glob(f"{name}.abi3.so"))
        _, lib = load.extension(f"foreign_package.{name}")
        assert lib.kit_glue_answer() == answer


def test_our_own_project_begins_with_the_abi() -> None:
    """Everything else includes ``unikit._abi``; a third party's project does not build it."""
    names = [extension.name for extension in build_ext.extensions(ROOT)]
    assert names[0] == "unikit._abi"
    assert len(names) == len(set(names))


def test_the_backend_offers_what_pep_517_and_660_ask_for() -> None:
    """pip calls these by name; a missing one turns into an obscure error."""
    for hook in ("build_wheel", "build_sdist", "build_editable", "get_requires_for_build_wheel",
                 "prepare_metadata_for_build_wheel"):
        assert callable(getattr(backend, hook))
