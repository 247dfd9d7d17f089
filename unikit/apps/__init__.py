"""Applications: folders with an ``image.py`` that says what an image is made of, and sources.

``image.py`` defines ``IMAGE``, an :class:`App`:

.. code-block:: python

    from unikit.apps import App
    from unikit.component import Option

    IMAGE = App(
        name="http",
        summary="a web server that serves a packed folder",
        sources=("main.c",),
        needs=("net",),
        files="site",
        options=(Option("port", 80, "TCP port", minimum=1, maximum=65535, when="boot"),),
        forward=("8080:80",),
    )

The options of an application have the same language as a component's; their ids are
``app.<name>.<option>`` and ``kit_app_option("port")`` reads them in C.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from unikit.component import Option
from unikit.errors import CompositionError, NotFound

SOURCES = (".c", ".cc", ".cpp", ".S", ".s", ".o", ".a")
"""File name endings an application may bring."""

NEEDS = ("net", "sched:threads")
"""What an application may need of its composition."""

_NAME = re.compile(r"^[a-z][a-z0-9_-]*$")
_FORWARD = re.compile(r"^(?:(tcp|udp):)?(\d{1,5}):(\d{1,5})$")
_USES = (
    ("net", re.compile(r"\bkit_(tcp|udp|net)_\w+\s*\(")),
    ("sched:threads", re.compile(
        r"\bkit_(tcp_(wait_\w+|read|write)|task_(join|yield|sleep_until)|mutex_\w+|condition_\w+"
        r"|semaphore_\w+)\s*\(")),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An application: what ``image.py`` declares.

    :ivar name: also the name of its image and of its options, ``app.<name>.<option>``.
    :ivar folder: where it lies, absolute; filled in by :func:`find`.
    :ivar summary: one line for people.
    :ivar sources: files relative to ``folder``: C, C++, assembly, objects, archives.
    :ivar needs: of :data:`NEEDS`; the composer adds the default component for what is missing.
    :ivar events: whether anything happens after ``init_application``: work, timers, tasks, console
        input, ``process_application_logic``. ``False``: the image ends when it returns; no
        scheduler is added and the main loop is left out, unless there is a network.
    :ivar files: a folder relative to ``folder`` that is packed into the image; empty: none.
    :ivar options: the application's own options; the ``text`` kind is read at boot only, by
        ``kit_boot_option("app.<name>.<option>")``.
    :ivar forward: ports ``run`` forwards to by default, ``"host:guest"`` or
        ``"udp:host:guest"``.
    :ivar flags: further compiler flags for its sources; with ``"-Os"`` its scheduler, too, is
        compiled for size.
    """

    name: str
    folder: Path = Path()
    summary: str = ""
    sources: tuple[str, ...] = ("main.c",)
    needs: tuple[str, ...] = ()
    events: bool = True
    files: str = ""
    options: tuple[Option, ...] = ()
    forward: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def source_files(self) -> tuple[Path, ...]:
        """Return the sources as absolute paths."""
        return tuple(self.folder / name for name in self.sources)

    def files_folder(self) -> Path | None:
        """Return the folder to pack, or ``None``."""
        return self.folder / self.files if self.files else None

    def packed_files(self) -> Iterator[tuple[str, Path]]:
        """Yield (path in the image, file) of every file to pack, sorted bytewise by path.

        Hidden files and folders stay outside; a symbolic link is followed only to a file.
        """
        folder = self.files_folder()
        if folder is None:
            return
        found = []
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                found.append((inside.as_posix(), path))
        yield from sorted(found, key=lambda item: item[0].encode())

    def option_id(self, option: Option) -> str:
        """Return the full name of an option, ``app.http.port``."""
        return f"app.{self.name}.{option.name}"

    def forwards(self) -> tuple[tuple[str, int, int], ...]:
        """Return ``forward`` as (``"tcp"`` or ``"udp"``, host port, guest port)."""
        return tuple(parse_forward(text) for text in self.forward)

    def _types(self) -> list[str]:
        """Return which fields are not of their type; a bare text is no tuple of texts."""
        found = [f"app: {field} must be a text, not {value!r}" for field in ("name", "files")
                 if not isinstance(value := getattr(self, field), str)]
        for field, kind in (("sources", str), ("needs", str), ("options", Option),
                            ("forward", str), ("flags", str)):
            value = getattr(self, field)
            if not isinstance(value, tuple | list) or not all(
                    isinstance(each, kind) for each in value):
                found.append(f"app: {field} must be a tuple of "
                             f"{'texts' if kind is str else 'options'}, not {value!r}")
        return found

    def problems(self) -> list[str]:
        """Return every mistake in the record, each in one line."""
        found = self._types()
        if found:
            return found
        if not _NAME.match(self.name):
            found.append(f"app: name {self.name!r} must be lower case letters, digits, - and _")
        where = f"app.{self.name}"
        if not self.sources:
            found.append(f"{where}.sources: there is none; an image needs init_application()")
        for source in self.sources:
            if not (self.folder / source).is_file():
                found.append(f"{where}.sources: {self.folder / source} is missing")
            elif not source.endswith(SOURCES):
                found.append(f"{where}.sources: {source!r} must end in one of {' '.join(SOURCES)}")
        for need in self.needs:
            if need not in NEEDS:
                found.append(f"{where}.needs: {need!r} is unknown; allowed: {', '.join(NEEDS)}")
        if self.files and not (self.folder / self.files).is_dir():
            found.append(f"{where}.files: {self.folder / self.files} is no folder")
        for option in self.options:
            try:
                option.parse(option.default)
            except ValueError as error:
                found.append(f"{self.option_id(option)}: default {error}")
        for text in self.forward:
            try:
                parse_forward(text)
            except ValueError as error:
                found.append(f"{where}.forward: {error}")
        return found


def parse_forward(text: str) -> tuple[str, int, int]:
    """Return (``"tcp"`` or ``"udp"``, host port, guest port) of ``"8080:80"`` or ``"udp:7007:7"``.

    :raises ValueError: anything else, or a port out of range; host port 0 means any free one.
    """
    match = _FORWARD.match(text)
    if match is None or int(match[2]) > 65535 or not 0 < int(match[3]) <= 65535:
        raise ValueError(f"{text!r} is no port forward; write 8080:80 or udp:7007:7")
    return match[1] or "tcp", int(match[2]), int(match[3])


def bundled() -> tuple[App, ...]:
    """Return the applications that come with unikit, sorted by name."""
    here = Path(__file__).resolve().parent
    return tuple(_load(path.parent) for path in sorted(here.glob("*/image.py")))


def find(name: str | Path) -> App:
    """Return a bundled application by name, or the one in a folder.

    A folder without ``image.py`` is an application too: all its C, C++ and assembly files, with
    what they call deciding what it needs, and its folder ``files``, if any, packed.

    :param name: ``"http"``, or a path: anything with a ``/``, or a :class:`~pathlib.Path`.
    :raises NotFound: there is no such application or folder.
    :raises CompositionError: its record is wrong; every mistake is listed.
    """
    if isinstance(name, str) and "/" not in name and name not in (".", ".."):
        folder = Path(__file__).resolve().parent / name
        if not (folder / "image.py").is_file():
            known = ", ".join(app.name for app in bundled())
            raise NotFound(f"no bundled application is called {name!r}; there are {known}; "
                           f"for a folder write ./{name}")
    else:
        folder = Path(name).resolve()
        if not folder.is_dir():
            raise NotFound(f"{folder} is no folder; an application is a folder with main.c")
    return _load(folder)


def _load(folder: Path) -> App:
    if (folder / "image.py").is_file():
        app = _run(folder / "image.py")
        app = dataclasses.replace(app, folder=folder)
    else:
        app = _guess(folder)
    problems = app.problems()
    if problems:
        raise CompositionError(problems)
    return app


def _run(path: Path) -> App:
    import runpy
    try:
        app = runpy.run_path(str(path)).get("IMAGE")
    except (Exception, SystemExit) as error:
        raise CompositionError([f"{path}: {type(error).__name__}: {error}"]) from error
    if not isinstance(app, App):
        raise CompositionError([f"{path}: IMAGE must be an unikit.apps.App"])
    return app


def _guess(folder: Path) -> App:
    sources = tuple(sorted(path.name for path in folder.iterdir()
                           if path.suffix in (".c", ".cc", ".cpp", ".S")))
    text = "\n".join((folder / name).read_text(errors="replace") for name in sources)
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.name.lower()).strip("-")
    return App(name=name if _NAME.match(name) else f"app-{name}", folder=folder,
               summary=f"the application in {folder.name}", sources=sources,
               needs=tuple(need for need, calls in _USES if calls.search(text)),
               files="files" if (folder / "files").is_dir() else "")
