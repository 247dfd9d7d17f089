"""Write a component as plain C for other projects: sources, headers, Makefile, pkg-config file.

What is written depends on nothing of ours any more: a C compiler is enough to build it, and a
program uses it through ``pkg-config``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from unikit import __version__
from unikit.component import Component
from unikit.errors import AlreadyExists, InvalidArgument
from unikit.image import toolchain

_INCLUDE = re.compile(r'^\s*#\s*include\s+(?:<(unikit/[^>]+)>|"([^"]+)")', re.MULTILINE)
_FOLDERS = {"netif": "net/netif.h", "console": "platform/console/console.h"}

_MAKEFILE = """# {id}: make builds lib{library}.a here; make install PREFIX=/usr/local installs it.
CC ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
objects = {objects}

lib{library}.a: $(objects)
\trm -f $@
\t$(AR) rcs $@ $(objects)

src/%.o: src/%.c
\t$(CC) -std=gnu11 $(CFLAGS) -Iinclude -Isrc -c $< -o $@

src/%.o: src/%.S
\t$(CC) $(CFLAGS) -Iinclude -Isrc -c $< -o $@

install: lib{library}.a
\tinstall -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
\tinstall -m 644 lib{library}.a $(DESTDIR)$(PREFIX)/lib
\tcp -r include/unikit $(DESTDIR)$(PREFIX)/include
\tsed -e 's|^prefix=.*|prefix=$(PREFIX)|' -e 's|^libdir=.*|libdir=$${{prefix}}/lib|' \\
\t\t{library}.pc > $(DESTDIR)$(PREFIX)/lib/pkgconfig/{library}.pc

clean:
\trm -f $(objects) lib{library}.a

.PHONY: install clean
"""

_PKGCONFIG = """prefix={prefix}
libdir=${{prefix}}
includedir=${{prefix}}/include

Name: {library}
Description: {summary}
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -l{library}
"""

_README = """{id}, exported from unikit {version} (MIT licence)

{summary}
Reference: {reference}

The interface is include/unikit/{header}; the component is the constant {symbol}.
Its options, one uint64_t each, in this order:
{options}
Build: make        Use: cc program.c $(pkg-config --cflags --libs ./{library}.pc)
"""


def export(record: type[Component], folder: Path) -> list[Path]:
    """Write a component into a new or empty folder and return the files written.

    :raises InvalidArgument: it has no C side that runs elsewhere.
    :raises AlreadyExists: the folder has something in it.
    """
    if not record.sources or record.side != "image":
        raise InvalidArgument(f"{record.id} has no freestanding C side; it cannot be exported")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} has something in it; give a new or empty folder")
    library = "unikit-" + record.id.replace(".", "-")
    sources = record.source_files()
    public, private = _headers(sources)
    header = _FOLDERS.get(record.domain(), f"{record.domain()}/{record.domain()}.h")
    public.add(Path("unikit") / header)
    written = []

    def write(name: str | Path, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)

    for path in sorted(_closure(public)):
        write(Path("include") / path, (toolchain.ROOT / path).read_text())
    for path in sorted({*sources, *private}):
        write(Path("src") / path.name, path.read_text())
    write("src/panic.c", (toolchain.ROOT / "unikit/rt/host_panic.c").read_text())
    objects = " ".join(f"src/{path.stem}.o" for path in [*sources, Path("panic.c")])
    summary = (record.__doc__ or "").strip().splitlines()[0]
    write("Makefile", _MAKEFILE.format(id=record.id, library=library, objects=objects))
    write(f"{library}.pc", _PKGCONFIG.format(prefix=folder.resolve(), library=library,
                                             summary=summary, version=__version__))
    options = "\n".join(f"  {spec.name}: {spec.doc} (default {spec.default}; {spec.allowed()})"
                        for spec in record.options if spec.reaches_c) or "  none"
    write("README", _README.format(
        id=record.id, version=__version__, summary=summary, header=header, options=options,
        reference=record.reference or "none", symbol=record.symbol(), library=library))
    return written


def _headers(sources: Iterable[Path]) -> tuple[set[Path], set[Path]]:
    """Return (headers below unikit/, headers beside the sources) that sources include."""
    public: set[Path] = set()
    private: set[Path] = set()
    todo = list(sources)
    while todo:
        path = todo.pop()
        for outer, beside in _INCLUDE.findall(path.read_text()):
            if outer:
                public.add(Path(outer))
            elif (path.parent / beside) not in private:
                private.add(path.parent / beside)
                todo.append(path.parent / beside)
    return public, private


def _closure(headers: Iterable[Path]) -> set[Path]:
    """Return headers with all that they include in turn."""
    found: set[Path] = set()
    todo = list(headers)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [Path(outer) for outer, _ in
                     _INCLUDE.findall((toolchain.ROOT / path).read_text()) if outer]
    return found
