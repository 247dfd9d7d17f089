"""What ``--sched`` and ``--set`` mean: schedulers with their options."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unikit import registry
from unikit.cli.images import settings
from unikit.component import Component
from unikit.errors import CompositionError, NotFound
from unikit.sched.api import Scheduler
from unikit.sched.policy import Policy


class Chosen(NamedTuple):
    """A scheduler to look at.

    :ivar name: as it was written: ``edf``, ``fair:slice=1ms``.
    """

    name: str
    record: Scheduler


def schedulers(choice: argparse.Namespace, able: Callable[[type[Component]], str | None]
               ) -> list[Chosen]:
    """Return the schedulers that were named, or all that are able.

    :param able: says why one cannot be used; ``None``: it can.
    :raises CompositionError: with every problem found.
    """
    given = settings(choice.set)
    used: set[str] = set()
    problems: list[str] = []
    found: list[Chosen] = []
    words = [word.strip() for each in choice.sched for word in each.split(",") if word.strip()]
    names = words or [record.stem() for record in registry.components("sched")
                      if able(record) is None]
    for name in dict.fromkeys(names):
        try:
            found.append(_one(name, given, used, able))
        except NotFound as error:
            problems.append(str(error))
        except CompositionError as error:
            problems += error.problems
    options = [f"{each.record.id}.{spec.name}" for each in found for spec in each.record.options]
    for key in [] if problems else sorted(set(given) - used):
        problems.append(f"--set {key}: {_nearest(key, options)}")
    if problems:
        raise CompositionError(problems)
    return found


def _one(name: str, given: dict[str, str], used: set[str],
         able: Callable[[type[Component]], str | None]) -> Chosen:
    stem, *words = name.split(":")
    if stem.endswith(".py"):
        return Chosen(":".join(words), _policy(Path(stem), ":".join(words), able))
    record = registry.find(stem, "sched")
    if not issubclass(record, Scheduler):
        raise CompositionError([f"{record.id} is no scheduler"])
    if why := able(record):
        raise CompositionError([f"{record.id}: {why}"])
    values: dict[str, Any] = {}
    known = [spec.name for spec in record.options]
    for key, value in given.items():
        option = key.removeprefix(f"{record.id}.")
        if option != key and option in known:
            used.add(key)
            values[option] = value
    for word in words:
        option, equals, value = word.partition("=")
        if not equals or option not in known:
            raise CompositionError([f"{record.id}: {word!r} is no OPTION=VALUE of it; options: "
                                    f"{', '.join(known) or 'none'}"])
        values[option] = value
    return Chosen(name, record(**values))


def _policy(path: Path, name: str, able: Callable[[type[Component]], str | None]) -> Scheduler:
    """Return a policy written in Python, of a file: ``shortest.py:Shortest``."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise CompositionError([f"--sched {path}: there is no such file"])
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CompositionError([f"--sched {path}: {type(error).__name__}: {error}"]) from error
    known = [key for key, value in vars(module).items() if isinstance(value, type)
             and issubclass(value, Policy) and value.__module__ == module.__name__]
    if name not in known:
        raise CompositionError([f"--sched {path}:{name}: name a policy of that file: "
                                f"{', '.join(known) or 'it has none'}"])
    if why := able(vars(module)[name]):
        raise CompositionError([f"--sched {path}:{name}: {why}"])
    made: Scheduler = vars(module)[name]()
    return made


def _nearest(key: str, known: Iterable[str]) -> str:
    options = list(known)
    near = difflib.get_close_matches(key, options, 1)
    return "no scheduler chosen has that option" + (
        f"; did you mean {near[0]}?" if near else f"; options: {', '.join(options) or 'none'}")
