"""``unikit alloc run``: a program with another allocator."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
from pathlib import Path

from unikit.alloc.api import Allocator
from unikit.cli.alloc import loading, programs
from unikit.cli.images import settings
from unikit.cli.output import progress
from unikit.component import parse_size
from unikit.errors import CompositionError, InvalidArgument, NotFound, NotSupported
from unikit.image import preload


def do_run(choice: argparse.Namespace) -> int:
    """Become the program, with the allocator in it; returns only if that fails.

    The process is replaced, so terminal, signals and exit status are the program's own.
    """
    words = choice.command[1:] if choice.command[:1] == ["--"] else choice.command
    if not words:
        raise InvalidArgument("say what to run after --, for example: "
                              "unikit alloc run --allocator tlsf -- python3 app.py")
    examined = programs.examine(words[0])
    if examined is None:
        raise programs.missing(words[0])
    if examined.obstacle:
        raise NotSupported(f"{words[0]} runs with no allocator but its own: {examined.obstacle}")
    record = _record(choice)
    if choice.leaks and "leaks" not in record.features:
        raise NotSupported(f"--leaks: {choice.allocator} does not keep call sites; put a layer in "
                           f"front that does: --allocator guard,{choice.allocator}")
    options = _options(choice)
    with progress(f"making the preload library of {choice.allocator}"):
        library = preload.library(record)
    variables = loading.environment(library) | options
    loading.verify(examined.path, library, variables)
    path = shutil.which(words[0]) or words[0]
    try:
        os.execve(path, words, variables)  # noqa: S606
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise InvalidArgument(f"{path}: is no program that this system can run") from error
        raise


def _record(choice: argparse.Namespace) -> Allocator:
    """Return the allocator with its layers and options.

    :raises CompositionError: there is none of that name, or an option is wrong.
    :raises InvalidArgument: it is written as ``compare`` takes it.
    """
    try:
        return preload.choose(choice.allocator, settings(choice.set))
    except CompositionError:
        _hint(choice.allocator)
        raise


def _hint(word: str) -> None:
    """Say what is meant by a word that is right elsewhere."""
    from unikit.cli.alloc import references
    if "/" in word or word in references.installed():
        raise InvalidArgument(f"--allocator {word}: it is no component, which are what this runs "
                              "programs with; LD_PRELOAD takes its library as it is")
    if "+" in word or ":" in word:
        raise InvalidArgument(f"--allocator {word}: write {references.typed(word)}")


def _options(choice: argparse.Namespace) -> dict[str, str]:
    """Return what the library itself is told, by environment variables."""
    found = {}
    if choice.reserve:
        try:
            found["UNIKIT_ALLOC_RESERVE"] = str(parse_size(choice.reserve))
        except ValueError as error:
            raise InvalidArgument(f"--reserve: {error}") from error
    if choice.hugepages:
        found["UNIKIT_ALLOC_HUGEPAGES"] = "1"
    if choice.leaks:
        found["UNIKIT_ALLOC_LEAKS"] = "1"
    if choice.json:
        target = Path(choice.json).absolute()
        if not target.parent.is_dir():
            raise NotFound(f"--json: there is no folder {target.parent}")
        found["UNIKIT_ALLOC_STATS"] = str(target)
    elif choice.stats:
        found["UNIKIT_ALLOC_STATS"] = "1"
    return found
