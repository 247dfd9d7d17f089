"""Build components as cffi extensions; used by unikit's own pyproject and by third parties'.

A distribution with components says in its ``pyproject.toml``::

    [build-system]
    requires = ["setuptools>=77", "cffi>=1.17", "unikit-os"]
    build-backend = "setuptools.build_meta"

    [project.entry-points."unikit.components"]
    "alloc.mine" = "mypackage.mine:Mine"

    [tool.setuptools]
    ext-modules = [{name = "mypackage._mine", sources = []}]      # replaced by what is found

    [tool.setuptools.cmdclass]
    build_ext = "unikit.ffi.build_ext.BuildExt"

Every entry point whose record has C sources becomes one extension (``mypackage._mine``). Hosted C
that is no component is named under ``[tool.unikit.extensions]``::

    "mypackage._glue" = {headers = ["mypackage/glue.h"], sources = ["mypackage/glue.c"]}

with optional ``guard = true`` (a panic unwinds to the call), ``libraries`` and ``defines``. Modules
written for the interpreter at hand, beyond the stable ABI, are named under
``[tool.unikit.native]``; where one does not compile, the rest is built without it::

    "mypackage._fast" = {sources = ["mypackage/host_fast.c"]}
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cffi
from cffi import recompiler
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

from unikit.component import Component
from unikit.ffi import abi_build, cdef

# Under the limited API Python.h no longer brings the libc headers that cffi's own code uses.
_FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wno-unused-function",
          "-include", "unikit/ffi/hooks/libc.h"]
_BIND = """
struct kit_host_hooks;
void kit_host_bind(const struct kit_host_hooks *table);
"""


class BuildExt(build_ext):  # type: ignore[misc]
    """``build_ext`` that makes one cffi extension per component of the distribution."""

    def build_extensions(self) -> None:
        """Let assembly files be sources too: setuptools' compilers know C alone."""
        known = self.compiler.src_extensions
        if ".S" not in known:
            self.compiler.src_extensions = [*known, ".S"]
        super().build_extensions()

    def finalize_options(self) -> None:
        """Replace the stub in ``ext-modules`` by the extensions of this distribution."""
        super().finalize_options()
        self.extensions = self.distribution.ext_modules = list(extensions(Path.cwd()))
        for extension in self.extensions:
            extension._full_name = extension.name
            extension._links_to_dynamic = False
            extension._needs_stub = False
            self.ext_map[extension.name] = extension
            self.ext_map[extension.name.rpartition(".")[2]] = extension
            extension._file_name = self.get_ext_filename(extension.name)


def extensions(project: Path) -> Iterator[Extension]:
    """Yield the extensions of the distribution whose ``pyproject.toml`` lies in ``project``."""
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    own = settings["project"]["name"] == "unikit-os"
    if own:
        yield _abi(project)
    points = settings["project"].get("entry-points", {}).get("unikit.components", {})
    for name, target in points.items():
        record = _record(name, target)
        if record.sources:
            yield _component(project, record)
    for name, table in settings.get("tool", {}).get("unikit", {}).get("extensions", {}).items():
        yield _glue(project, name, table)
    for name, table in settings.get("tool", {}).get("unikit", {}).get("native", {}).items():
        yield _native(project, name, table)


def _record(name: str, target: str) -> type[Component]:
    module, _, attribute = target.partition(":")
    __import__(module)
    record = getattr(sys.modules[module], attribute)
    if not (isinstance(record, type) and issubclass(record, Component)):
        raise TypeError(f"entry point {name}: {target} is not a component record")
    if record.id != name:
        raise ValueError(f"entry point {name}: {target} says its id is {record.id!r}")
    return record


def _extension(project: Path, name: str, ffi: cffi.FFI, source: str, files: list[Path],
               **more: Any) -> Extension:
    out = project / "build" / "cffi" / f"{name}.c"
    out.parent.mkdir(parents=True, exist_ok=True)
    recompiler.make_c_source(ffi, name, source, str(out))
    headers = sorted((cdef.ROOT / "unikit").rglob("*.h"))
    paths = [str(out), *(_relative(project, path) for path in files)]
    return Extension(
        name, [_relative(project, Path(path)) for path in paths],
        include_dirs=[str(cdef.ROOT), str(project)],
        depends=[str(path) for path in headers + files],
        py_limited_api=True, extra_compile_args=_FLAGS,
        define_macros=[("Py_LIMITED_API", "0x030B0000"), *more.pop("define_macros", [])], **more)


def _relative(project: Path, path: Path) -> str:
    """Return a source relative to the project, as setuptools demands; a foreign one is copied."""
    path = project / path
    if not path.is_relative_to(project):
        path = Path(shutil.copy(path, project / "build" / "cffi"))
    return str(path.relative_to(project))


def _abi(project: Path) -> Extension:
    ffi, source = abi_build.ffibuilder()
    return _extension(project, "unikit._abi", ffi, source,
                      [cdef.ROOT / "unikit/ffi/hooks/abi.c", cdef.ROOT / "unikit/rt/host.c"])


def _component(project: Path, record: type[Component]) -> Extension:
    domain, symbol = record.domain(), record.symbol()
    kind = f"const struct kit_{domain}_component"
    ffi = cffi.FFI()
    ffi.include(abi_build.ffibuilder()[0])
    ffi.cdef(f"{kind} *kit_component(void);" + _BIND)  # a const global would come out as a copy
    source = (f"{cdef.prelude()}\nextern {kind} {symbol};\n"
              f"static {kind} *kit_component(void)\n{{\n    return &{symbol};\n}}\n")
    ffi.set_source(record.extension(), source)
    return _extension(project, record.extension(), ffi, source,
                      [*record.source_files(), cdef.ROOT / "unikit/rt/host.c"])


def _glue(project: Path, name: str, table: Mapping[str, Any]) -> Extension:
    texts = [cdef.region(header, project) for header in table["headers"]]
    source = cdef.prelude(table["headers"]) + "\n"
    if table.get("guard", False):
        declared, guards = cdef.guarded(texts)
        source += guards
    else:
        declared = "\n".join(texts)
    ffi = cffi.FFI()
    ffi.include(abi_build.ffibuilder()[0])
    ffi.cdef(declared + _BIND)
    ffi.set_source(name, source)
    files = [project / path for path in table["sources"]]
    return _extension(project, name, ffi, source, [*files, cdef.ROOT / "unikit/rt/host.c"],
                      libraries=list(table.get("libraries", ())),
                      define_macros=[(key, str(value))
                                     for key, value in table.get("defines", {}).items()])


def _native(project: Path, name: str, table: Mapping[str, Any]) -> Extension:
    files = [project / path for path in table["sources"]]
    headers = sorted((cdef.ROOT / "unikit").rglob("*.h"))
    return Extension(
        name, [_relative(project, path) for path in files], optional=True,
        include_dirs=[str(cdef.ROOT), str(project)],
        depends=[str(path) for path in headers + files],
        extra_compile_args=[*_FLAGS, "-fno-plt"], define_macros=[("_GNU_SOURCE", "1")])


def main() -> None:
    """Build the extensions of the project in the current folder in place."""
    distribution = Distribution({"script_name": "build_ext", "script_args": sys.argv[1:],
                                 "cmdclass": {"build_ext": BuildExt}})
    distribution.parse_config_files(["pyproject.toml"])
    command = distribution.get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main()
