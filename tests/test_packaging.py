"""What is shipped is enough: wheel and sdist, installed read-only and away from the checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from unikit import registry

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """Run a command without this tree in sight; its output."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={name: value for name, value in os.environ.items()
             if name not in ("PYTHONPATH", "UNIKIT_CACHE")} | environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources with nothing built in it."""
    target = tmp_path_factory.mktemp("sources") / "unikit"
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(
        "*.so", ".venv", ".git", "build", "dist", "__pycache__", "_build", "*.egg-info", ".*_cache",
        ".hypothesis", ".coverage", ".benchmarks"))
    return target


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    """Build the source distribution."""
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", tree / "dist", cwd=tree)
    (archive,) = (tree / "dist").glob("unikit_os-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the unpacked sdist, as an installer without a wheel would."""
    target = tmp_path_factory.mktemp("wheels")
    with tarfile.open(sdist) as archive:
        archive.extractall(target / "sources", filter="data")
    (sources,) = (target / "sources").iterdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", target, cwd=sources)
    shutil.rmtree(target / "sources")
    (built,) = target.glob("unikit_os-*.whl")
    return built


def packaged() -> set[str]:
    """Return every file of the package that is needed to compose, boot and embed."""
    found = set()
    for path in (ROOT / "unikit").rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix not in (".so", ".pyc", ".o") \
                and not {"__pycache__", "build"} & set(parts):
            found.add(path.relative_to(ROOT).as_posix())
    return found


def test_the_sdist_is_the_whole_clone(sdist: Path) -> None:
    """Whoever has the sources has tests, documentation, benchmarks and the CI."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = packaged() | {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".ci/run",
                             "docs/conf.py", "tests/conftest.py"}
    for folder in ("tests", "docs", "benchmarks"):
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*")
                     if path.is_file() and path.suffix in (".py", ".rst", ".c", ".h", ".css")
                     and not {"_build", "__pycache__"} & set(path.parts)}
    assert sorted(expected - names) == []
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]


def test_the_wheel_carries_every_source(wheel: Path) -> None:
    """C, headers, assembly, linker scripts, packed folders and the bootstrap script."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert sorted(packaged() - names) == []
    assert {Path(name).suffix for name in packaged()} >= {".c", ".h", ".S", ".ld", ".py", ".html"}
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_wheel_has_one_extension_per_component(wheel: Path) -> None:
    """For every Python from 3.11 on: the limited API, so one wheel is enough."""
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        built = {name.partition(".abi3")[0].replace("/", ".") for name in archive.namelist()
                 if name.endswith(".abi3.so")}
    wanted = {"unikit._abi"} | {record.extension() for record in registry.components()
                                if record.sources and registry.entries()[record.id].distribution
                                == registry.DISTRIBUTION}
    assert wanted <= built


def test_every_import_is_declared() -> None:
    """A module that only the test extra brings would be missing after `pip install`."""
    declared = {"cffi", "elftools", "pyroute2", "ptrace", "rich", "setuptools", "unikit"}
    optional = {"matplotlib", "numpy"}  # where their absence is caught and said
    wrong = []
    for path in sorted((ROOT / "unikit").rglob("*.py")):
        tree = ast.parse(path.read_text())
        typing_only = {inner for node in ast.walk(tree) if isinstance(node, ast.If)
                       and "TYPE_CHECKING" in ast.unparse(node.test) for inner in ast.walk(node)}
        caught = {inner for node in ast.walk(tree) if isinstance(node, ast.Try)
                  and any("ImportError" in ast.unparse(each.type) for each in node.handlers
                          if each.type) for inner in ast.walk(node)}
        for node in set(ast.walk(tree)) - typing_only:
            known = sys.stdlib_module_names | declared | (optional if node in caught else set())
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names
                      if name.partition(".")[0] not in known]
    assert not wrong


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a virtual environment from a local folder, never from an index."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    fetched = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", wheels,
                              "--only-binary=:all:", wheel], capture_output=True, text=True,
                             check=False, stdin=subprocess.DEVNULL)
    if fetched.returncode != 0:
        pytest.skip(f"the dependencies cannot be had here: {fetched.stderr[-300:]}")
    shutil.copy(wheel, wheels)
    run(sys.executable, "-m", "venv", folder / "venv")
    run(folder / "venv/bin/python", "-m", "pip", "install", "-q", "--no-index", "--find-links",
        wheels, "unikit-os", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    return folder / "venv"


@pytest.fixture(scope="module")
def read_only(environment: Path) -> Path:
    """Make the installed package read-only, as a system administrator's would be."""
    (package,) = environment.glob("lib/python3*/site-packages/unikit")
    run("chmod", "-R", "a-w", package)
    return environment


def test_it_imports_from_the_wheel(read_only: Path, tmp_path: Path) -> None:
    """Away from the checkout, every component loads and every extension opens."""
    code = ("import unikit; from unikit import registry; from unikit.ffi import load; "
            "[load.component(each) for each in registry.components() "
            "if each.sources and each.side == 'image']; "
            "print(unikit.__file__, registry.broken(), len(registry.components()))")
    said = run(read_only / "bin/python", "-I", "-c", code, cwd=tmp_path)
    assert str(read_only) in said and " {} " in said
    assert int(said.split()[-1]) >= 3


def test_it_builds_and_runs_an_image(read_only: Path, tmp_path: Path) -> None:
    """With the package read-only and the sources of the clone gone: composer and platform work."""
    before = snapshot(read_only)
    said = run(read_only / "bin/unikit", "run", "hello", "--platform", "linux", cwd=tmp_path,
               UNIKIT_CACHE=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="1")
    assert "hello from unikit" in said
    built = run(read_only / "bin/unikit", "build", "http", "-o", tmp_path / "http.elf",
                cwd=tmp_path, UNIKIT_CACHE=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="1")
    assert (tmp_path / "http.elf").read_bytes()[:4] == b"\x7fELF", built
    assert snapshot(read_only) == before
    strings = (tmp_path / "http.elf").read_bytes()
    assert str(ROOT).encode() not in strings and str(read_only).encode() not in strings


def test_a_c_project_embeds_an_allocator(read_only: Path, tmp_path: Path) -> None:
    """The CMake project of the documentation, against the installed package; then pkg-config."""
    page = (ROOT / "docs/howto/embed-an-allocator-in-c.rst").read_text()
    for language, name in (("cmake", "CMakeLists.txt"), ("c", "main.c")):
        match = re.search(rf"code-block:: {language}\n\n((?:   .*\n|\n)+)", page)
        assert match
        (tmp_path / name).write_text(re.sub(r"^   ", "", match[1], flags=re.MULTILINE))
    if shutil.which("cmake"):
        run("cmake", "-S", tmp_path, "-B", tmp_path / "build",
            f"-DPython3_EXECUTABLE={read_only / 'bin/python'}", "-DCMAKE_C_FLAGS=-Wall -Werror",
            cwd=tmp_path)
        run("cmake", "--build", tmp_path / "build", cwd=tmp_path)
        assert run(tmp_path / "build/program").endswith("bytes in 1 block\n")
    run(read_only / "bin/unikit", "export", "alloc.tlsf", tmp_path / "tlsf", cwd=tmp_path,
        PYTHONDONTWRITEBYTECODE="1")
    run("make", "-C", tmp_path / "tlsf")
    flags = run("pkg-config", "--cflags", "--libs", tmp_path / "tlsf/unikit-alloc-tlsf.pc").split()
    run("cc", "main.c", *flags, "-o", "program", cwd=tmp_path)
    assert run(tmp_path / "program").endswith("bytes in 1 block\n")


def snapshot(environment: Path) -> dict[str, int]:
    """Return the files of the installed package with their times."""
    (package,) = environment.glob("lib/python3*/site-packages/unikit")
    return {str(path.relative_to(package)): path.stat().st_mtime_ns
            for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_version_is_stated_once_in_effect(wheel: Path) -> None:
    """``unikit.__version__``, pyproject.toml, the wheel's name and the change log agree."""
    import unikit
    assert f'version = "{unikit.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert wheel.name.startswith(f"unikit_os-{unikit.__version__}-")
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert unikit.__version__ in headings
