"""Turn what a person asked for into a plan, or into the list of everything that is wrong with it.

Resolving is pure: it reads records and looks at files, starts nothing and opens nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unikit import registry
from unikit.alloc.api import DEFAULT, Allocator
from unikit.component import Component, Option
from unikit.errors import CompositionError, NotFound, UnikitError
from unikit.image.plan import AppOption, PackedFile, Plan

CPUS_MAX = 64
"""Most processors of an image (``KIT_CPUS_MAX``)."""

ABI = {"alloc": 1, "sched": 1, "net": 1, "netif": 1, "console": 1}
"""Version of each interface that images are built with (``KIT_<DOMAIN>_ABI``)."""
ENDINGS = (".c", ".cc", ".cpp", ".S", ".o", ".a")
"""What an application may be made of."""
CONSOLES_MAX = 4

Choice = Component | str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for, unchecked. ``None`` means «nothing», ``"auto"`` «what fits»."""

    name: str
    sources: Sequence[str | Path]
    needs: Sequence[str] = ()
    app_options: Sequence[Option] = ()
    alloc: Choice | Sequence[Choice] = DEFAULT
    sched: Choice = "loop"
    net: Choice = "auto"
    netif: Choice = None
    consoles: Sequence[Choice] = ()
    files: str | Path | None = None
    forward: Sequence[str] = ()
    platforms: Sequence[str] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimise: str = "speed"
    flags: Sequence[str] = ()
    events: bool = True
    cpus: int = 1
    preempt: bool | str = "auto"


class _Resolver:
    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.problems: list[str] = []
        self.used: set[str] = set()

    def plan(self) -> Plan:
        wish = self.wish
        several = wish.cpus != 1
        alloc = self.allocator(("shard" if several else DEFAULT) if wish.alloc == "auto" else
                               wish.alloc)
        wanted = wish.net
        if wanted == "auto":
            wanted = "mini" if "net" in wish.needs or wish.netif is not None else None
        net = self.choose("net", wanted)
        events = wish.events or net is not None
        wanted = wish.sched
        if wanted == "auto":
            wanted = None if not events else "steal" if several and "steal" in self.names(
                "sched").split(", ") else "coop" if "sched:threads" in wish.needs else "loop"
        sched = self.choose("sched", wanted)
        netif = self.choose("netif", wish.netif)
        consoles = [self.choose("console", each) for each in wish.consoles]
        if len(consoles) == 1 and consoles[0] is not None and consoles[0].id == "console.platform":
            consoles = []
        elif len(consoles) > 1 and all(each is None or each.id != "console.tee"
                                       for each in consoles):
            consoles.append(self.choose("console", "tee"))
        if len(consoles) > CONSOLES_MAX + 1:
            self.problems.append(f"console: {len(consoles) - 1} consoles are asked for; "
                                 f"{CONSOLES_MAX} are allowed")
        if alloc is None and (not wish.alloc or wish.alloc == "none"):
            self.problems.append("alloc: an image needs an allocator; choose one of "
                                 + self.names("alloc"))
        if sched is None and wish.sched is None and events:
            self.problems.append("sched: an image with events needs a scheduler; choose one of "
                                 + self.names("sched"))
        parts = [part for part in (*(alloc.layers() if alloc is not None else ()), sched, net,
                                   netif, *consoles) if part is not None]
        self.requirements(parts, alloc.layers()[1:] if alloc is not None else ())
        self.processors(alloc, sched)
        preempt = self.preemption(sched)
        options = self.app_settings()
        entries, entry_sources = self.platforms()
        sources, files = self.sources(), self.files()
        unknown = sorted(set(wish.settings) - self.used)
        for name in unknown:
            self.problems.append(f"{name}: no component or application option of this image has "
                                 f"that name; known: {', '.join(self.known(parts)) or 'none'}")
        if wish.optimise not in ("speed", "size", "debug"):
            self.problems.append(f"optimise: {wish.optimise!r}; allowed: speed, size, debug")
        if self.problems or alloc is None:
            raise CompositionError(self.problems)
        return Plan(wish.name, sources, alloc, sched, net, netif,
                    tuple(each for each in consoles if each is not None), entries, entry_sources,
                    files, options, tuple(wish.forward), wish.optimise, tuple(wish.flags),
                    wish.cpus, preempt)

    def processors(self, alloc: Component | None, sched: Component | None) -> None:
        """Note what cannot serve so many processors."""
        cpus = self.wish.cpus
        if not isinstance(cpus, int) or not 1 <= cpus <= CPUS_MAX:
            self.problems.append(f"cpus: {cpus!r}; give 1 to {CPUS_MAX}")
        elif cpus > 1:
            if sched is not None and "cpus" not in sched.features:
                self.problems.append(f"{sched.id} serves one processor, not {cpus}; choose sched="
                                     f"{self.able('sched', 'cpus')}")
            if alloc is not None and not {"threads", "shared"} & alloc.features:
                self.problems.append(f"{alloc.id} serves one processor, not {cpus}; choose alloc="
                                     f"{self.able('alloc', 'threads')}, or lock,"
                                     + ",".join(each.stem() for each in alloc.layers()))

    def able(self, domain: str, feature: str) -> str:
        return " or ".join(each.stem() for each in registry.components(domain)
                           if feature in each.features and "layer" not in each.features
                           ) or "(none is installed)"

    def preemption(self, sched: Component | None) -> bool:
        """Decide whether tasks are stopped against their will: where the scheduler can do that."""
        able = sched is not None and "preemption" in sched.features
        if self.wish.preempt == "auto":
            return able and self.wish.cpus == 1
        if self.wish.preempt not in (True, False):
            self.problems.append(f"preempt: {self.wish.preempt!r}; allowed: True, False, 'auto'")
        elif self.wish.preempt and not able:
            who, choices = sched.id if sched else "no scheduler", self.able("sched", "preemption")
            self.problems.append(f"preempt: {who} lets tasks run until they stop; choose "
                                 f"sched={choices}")
        elif self.wish.preempt and self.wish.cpus != 1:
            self.problems.append("preempt: only in an image of one processor so far; "
                                 "choose preempt=False or cpus=1")
        return self.wish.preempt is True

    def names(self, domain: str) -> str:
        return ", ".join(each.stem() for each in registry.components(domain)) or "none"

    def choose(self, domain: str, choice: Choice) -> Component | None:
        """Return the record a choice stands for, settings applied; problems are noted."""
        record = self.record(domain, choice)
        return None if record is None else self.configured(record)

    def record(self, domain: str, choice: Choice) -> type[Component] | Component | None:
        """Return the record a choice stands for as it was given; problems are noted."""
        if choice is None or choice == "none":
            return None
        record: type[Component] | Component = Component
        try:
            if isinstance(choice, str):
                record = registry.find(choice, domain)
            elif isinstance(choice, Component) or (
                    isinstance(choice, type) and issubclass(choice, Component)):
                record = choice
            else:
                self.problems.append(f"{domain}: {choice!r} is neither a component nor a name; "
                                     f"known: {self.names(domain)}")
                return None
        except UnikitError as error:
            self.problems += (error.problems if isinstance(error, CompositionError)
                              else [f"{domain}: {error}"])
            return None
        if record.domain() != domain:
            self.problems.append(f"{domain}: {record.id} is a {record.domain()} component; "
                                 f"choose one of {self.names(domain)}")
            return None
        if record.side != "image":
            self.problems.append(f"{domain}: {record.id} stays on the host and cannot be part of "
                                 "an image; give it to boot() or --netif instead")
            return None
        if record.abi != ABI[domain]:
            self.problems.append(f"{record.id}: written for version {record.abi} of the {domain} "
                                 f"interface, this unikit has {ABI[domain]}")
        return record

    def allocator(self, choice: Choice | Sequence[Choice]) -> Component | None:
        """Return the allocator of a choice with its layers, settings applied to each of them."""
        if choice is None or choice == "none":
            return None
        words: list[Any] = choice.split(",") if isinstance(choice, str) else \
            list(choice) if isinstance(choice, Sequence) else [choice]
        chain: list[type[Component] | Component] = []
        while words:
            word = words.pop(0)
            if word is None or word == "none":
                self.problems.append(f"{chain[-1].id if chain else 'alloc'}: needs an allocator to "
                                     f"stand on; choose one of {self.names('alloc')}")
                return None
            record = self.record("alloc", word)
            if record is None or not self.fits(record, chain, words):
                return None
            chain.append(record)
        made: Component | None = None
        for record in reversed(chain):
            made = self.configured(record) if made is None else self.configured(record, inner=made)
        return made

    def fits(self, record: type[Component] | Component, chain: Sequence[Any],
             words: list[Any]) -> bool:
        """Say whether a record may follow ``chain``; what it stands on goes into ``words``."""
        if any(each.id == record.id for each in chain):
            self.problems.append(f"{record.id}: is there twice; a layer cannot stand on itself")
            return False
        if "layer" not in record.features:
            if words:
                self.problems.append(f"{record.id}: is no layer and stands on nothing; name it "
                                     "last, behind the layers")
            return not words
        key = f"{record.id}.inner"
        inner = getattr(record, "inner", None) if isinstance(record, Component) else None
        if key in self.wish.settings:
            self.used.add(key)
            inner = self.wish.settings[key]
        if inner is not None and words:
            self.problems.append(f"{record.id}: is to stand on {getattr(inner, 'id', inner)} and "
                                 f"on {getattr(words[0], 'id', words[0])}; say one of the two")
            return False
        if not words:
            words.append(DEFAULT if inner is None else inner)
        return True

    def configured(self, record: type[Component] | Component, **more: Any) -> Component | None:
        values = {} if isinstance(record, type) else {
            spec.name: getattr(record, spec.name) for spec in record.options}
        values |= more
        for spec in record.options:
            key = f"{record.id}.{spec.name}"
            if key in self.wish.settings and spec.kind != "component":
                self.used.add(key)
                values[spec.name] = self.wish.settings[key]
        kind = record if isinstance(record, type) else type(record)
        try:
            return kind(**values)
        except CompositionError as error:
            self.problems += error.problems
            return None

    def known(self, parts: Iterable[Component]) -> list[str]:
        return [f"{part.id}.{spec.name}" for part in parts for spec in part.options] + [
            f"app.{self.wish.name}.{spec.name}" for spec in self.wish.app_options]

    def requirements(self, parts: Sequence[Component], below: Sequence[Component]) -> None:
        """Note what is needed and not there; what stands below a layer is seen only through it."""
        have = {part.domain() for part in parts} | {part.id for part in parts} | {
            f"{part.domain()}:{feature}" for part in parts if part not in below
            for feature in part.features}
        asked = [(f"the application {self.wish.name}", need) for need in self.wish.needs]
        asked += [(part.id, need) for part in parts for need in part.requires]
        for who, need in asked:
            if need in have:
                continue
            domain, _, feature = need.partition(":")
            domain = domain.partition(".")[0]
            able = [each.stem() for each in registry.components(domain)
                    if not feature or feature in each.features]
            self.problems.append(f"{who} needs {need}; choose {domain}="
                                 f"{' or '.join(able) or '(none is installed)'}")

    def app_settings(self) -> tuple[AppOption, ...]:
        decided = []
        for spec in self.wish.app_options:
            value = spec.default
            for key in (f"app.{self.wish.name}.{spec.name}", f"app.{spec.name}"):
                if key in self.wish.settings:
                    self.used.add(key)
                    value = self.wish.settings[key]
            try:
                decided.append(AppOption(spec, spec.parse(value)))
            except ValueError as error:
                self.problems.append(f"app.{self.wish.name}.{spec.name}: {error}")
        return tuple(decided)

    def platforms(self) -> tuple[tuple[str, ...], tuple[Path, ...]]:
        records: list[Any] = list(registry.components("platform"))
        able = {record.entry: record for record in records
                if getattr(record, "entry", "") and record.entry_sources()}
        wanted = sorted(able) if self.wish.platforms is None else list(self.wish.platforms)
        for name in wanted:
            if name not in able:
                self.problems.append(f"for: there is no image entry for {name!r}; known: "
                                     f"{', '.join(sorted(able))}")
        if not wanted:
            self.problems.append(f"for: an image needs an entry; known: {', '.join(sorted(able))}")
        chosen = sorted({name for name in wanted if name in able})
        return tuple(chosen), tuple(path for name in chosen for path in able[name].entry_sources())

    def sources(self) -> tuple[Path, ...]:
        found = []
        for each in self.wish.sources:
            path = Path(each).absolute()
            if path.suffix not in ENDINGS:
                self.problems.append(f"source {each}: allowed endings are {', '.join(ENDINGS)}")
            elif not path.is_file():
                self.problems.append(f"source {each}: there is no such file")
            else:
                found.append(path)
        if not self.wish.sources:
            self.problems.append(f"{self.wish.name}: an image needs at least one source file")
        return tuple(found)

    def files(self) -> tuple[PackedFile, ...]:
        if self.wish.files is None:
            return ()
        folder = Path(self.wish.files).absolute()
        if not folder.is_dir():
            self.problems.append(f"files: {self.wish.files} is not a folder")
            return ()
        found = []
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            name = inside.as_posix()
            hidden = any(part.startswith(".") for part in inside.parts)
            if path.is_file() and not hidden:
                if any(ord(letter) < 32 or 0xd800 <= ord(letter) < 0xe000 for letter in name):
                    self.problems.append(f"files: {name!r} has a control character, or bytes that "
                                         "are no UTF-8, in its name; rename it")
                    continue
                try:
                    size = path.stat().st_size
                    path.open("rb").close()
                except OSError as error:
                    self.problems.append(f"files: cannot read {path}: {error.strerror}")
                    continue
                found.append(PackedFile(name, path, size))
        return tuple(sorted(found, key=lambda file: file.path.encode()))


def resolve(wish: Wish) -> Plan:
    """Return the plan for a wish.

    :raises CompositionError: with every problem found, before any compiler runs.
    """
    try:
        return _Resolver(wish).plan()
    except NotFound as error:
        raise CompositionError([str(error)]) from error


def allocator(choice: Choice | Sequence[Choice], settings: Mapping[str, Any] | None = None
              ) -> Allocator:
    """Return the allocator of a choice outside of any image, settings applied to all its layers.

    :param choice: a record, a name, or layers from the outside in: ``"guard,tlsf"``, a sequence.
    :param settings: option values by ``alloc.NAME.OPTION``.
    :raises CompositionError: with every problem found.
    """
    resolver = _Resolver(Wish("", (), settings=settings or {}))
    found = resolver.allocator(choice)
    if found is None and not resolver.problems:
        resolver.problems.append("alloc: choose one of " + resolver.names("alloc"))
    if isinstance(found, Allocator):
        known = resolver.known(found.layers())
        resolver.problems += [f"{name}: no allocator chosen has that option; known: "
                              f"{', '.join(known) or 'none'}"
                              for name in sorted(set(settings or {}) - resolver.used)]
        if not resolver.problems:
            return found
    raise CompositionError(resolver.problems)
