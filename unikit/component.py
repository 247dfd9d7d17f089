"""Component records: what a component is, which options it has, what it needs.

A component is described by one frozen dataclass. Its options are the fields, declared with
:func:`option`; everything else is a class attribute. A record is a *choice*: it holds values, opens
nothing, and can be read without loading any extension.

.. code-block:: python

    @component
    class Tlsf(Allocator):
        \"""Two-level segregated fit: constant time, low fragmentation.\"""

        id = "alloc.tlsf"
        features = frozenset({"reuses", "bounded"})
        sources = ("tlsf.c",)
        reference = "Masmano et al., TLSF: a new dynamic memory allocator, ECRTS 2004"

        pool: int | str = option(0, "bytes to manage; 0: all there is", kind="size")
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from unikit.errors import CompositionError, NotFound

INTERFACES = ("alloc", "sched", "net", "netif", "console", "block", "platform")
"""The interfaces a component may implement; the first word of its id."""

KINDS = ("int", "size", "duration", "ratio", "bool", "choice", "address", "prefix", "text",
         "component")

_ID = re.compile(r"^[a-z][a-z0-9]*\.[a-z][a-z0-9_]*$")
_SIZE = re.compile(r"^(\d+)\s*([KMGT]?)(i?B)?$", re.IGNORECASE)
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ns|us|ms|s)$")
_POWER = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """What is allowed for one option of a component.

    :ivar kind: ``int``, ``size`` (bytes, ``"64M"``), ``duration`` (ns, ``"2ms"``), ``ratio`` (0 to
        1, ``"1%"``; C gets it in units of 2^-32; build time only), ``bool``, ``choice``,
        ``address`` (IPv4), ``prefix`` (``"10.0.0.2/24"``), ``text`` or ``component``: a record that
        this one stands on, its name, or ``None``; ``choices`` is then its domain. ``text`` and
        ``component`` stay on the host; every other kind reaches C as one ``uint64_t``
        (``rt/opt.h``).
    :ivar minimum: smallest allowed number, if the kind has an order.
    :ivar maximum: largest allowed number.
    :ivar unit: what the number counts, for people.
    :ivar when: ``"build"``: fixed in the image; ``"boot"``: may be given anew at each boot.
    """

    name: str
    default: Any
    doc: str
    kind: str = "int"
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    when: str = "build"

    @property
    def reaches_c(self) -> bool:
        """Whether C gets the value; what does not stays on the host."""
        return self.kind not in ("text", "component")

    def allowed(self) -> str:
        """Say in words what is allowed."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "bool":
            return "true or false"
        if self.kind == "component":
            return f"an {self.choices[0]} component or its name"
        words = {
            "int": "a whole number", "size": "a size such as 65536, 64K or 16M",
            "duration": "a time such as 250us, 2ms or 1s", "text": "text",
            "ratio": "a share such as 0.01 or 1%", "address": "an IPv4 address such as 10.0.0.1",
            "prefix": "an IPv4 prefix such as 10.0.0.2/24",
        }[self.kind]
        if self.minimum is not None or self.maximum is not None:
            low = "" if self.minimum is None else str(self.minimum)
            high = "" if self.maximum is None else str(self.maximum)
            words += f" in {low}...{high}"
        return words + (f" ({self.unit})" if self.unit else "")

    def parse(self, value: Any) -> Any:
        """Turn a value as people write it into its normal form.

        :raises ValueError: the value is not allowed; the message says what is.
        """
        try:
            result = getattr(self, f"_parse_{self.kind}")(value)
        except NotFound as error:
            raise ValueError(str(error)) from None
        except (ValueError, TypeError):
            raise ValueError(f"{value!r} is not allowed; give {self.allowed()}") from None
        if isinstance(result, int) and not isinstance(result, bool):
            low = 0 if self.minimum is None else self.minimum
            high = 2**64 - 1 if self.maximum is None else self.maximum
            if not low <= result <= high:
                raise ValueError(f"{value!r} is out of range; give {self.allowed()}")
        return result

    def encode(self, value: Any) -> int:
        """Return the value as C gets it (``rt/opt.h``)."""
        if self.kind == "choice":
            return self.choices.index(value)
        if self.kind == "ratio":
            return int(round(value * 2**32))
        if self.kind in ("address", "prefix") and value:
            import ipaddress  # 4 ms that most commands need not pay
            prefix = ipaddress.IPv4Interface(value)
            length = prefix.network.prefixlen if self.kind == "prefix" else 0
            return int(prefix.ip) | length << 32
        if self.kind == "prefix":
            return 0
        return int(value)

    @staticmethod
    def _parse_int(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise TypeError
        return value if isinstance(value, int) else int(value, 0)

    @staticmethod
    def _parse_size(value: Any) -> int:
        return parse_size(value)

    @staticmethod
    def _parse_duration(value: Any) -> int:
        return parse_duration(value)

    @staticmethod
    def _parse_ratio(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError
        percent = isinstance(value, str) and value.strip().endswith("%")
        share = float(str(value).strip().rstrip("%")) / (100 if percent else 1)
        return share if 0 <= share <= 1 else _refuse()

    @staticmethod
    def _parse_bool(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        return {"true": True, "yes": True, "on": True, "1": True,
                "false": False, "no": False, "off": False, "0": False}[str(value).lower()] \
            if str(value).lower() in ("true", "yes", "on", "1", "false", "no", "off", "0") \
            else _refuse()

    def _parse_choice(self, value: Any) -> str:
        return str(value) if value in self.choices else str(_refuse())

    @staticmethod
    def _parse_address(value: Any) -> str:
        import ipaddress
        return str(ipaddress.IPv4Address(value))

    @staticmethod
    def _parse_prefix(value: Any) -> str:
        if value in ("", None):
            return ""
        if isinstance(value, str) and "/" not in value:
            raise ValueError
        import ipaddress
        return str(ipaddress.IPv4Interface(value).with_prefixlen)

    @staticmethod
    def _parse_text(value: Any) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise TypeError
        return value

    def _parse_component(self, value: Any) -> Any:
        if isinstance(value, str):
            from unikit import registry  # which needs this module
            value = registry.find(value, self.choices[0])
        if isinstance(value, type) and issubclass(value, Component):
            value = value()
        if value is not None and not (isinstance(value, Component)
                                      and value.domain() == self.choices[0]):
            raise TypeError
        return value


def _refuse() -> Any:
    raise ValueError


def parse_size(value: int | str) -> int:
    """Return bytes for ``65536``, ``"64K"``, ``"16M"`` or ``"1GiB"`` (powers of 1024).

    :raises ValueError: anything else, or a negative number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.match(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} is not a size; write 65536, 64K or 16M")
        size = int(match[1]) << _POWER[match[2].upper()]
    if size < 0:
        raise ValueError(f"{value!r} is negative; a size is not")
    return size


def parse_duration(value: int | str) -> int:
    """Return nanoseconds for an int of ns, ``"250us"``, ``"2ms"``, ``"1.5s"``.

    :raises ValueError: anything else, or a negative number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value!r} is negative; a duration is not")
        return value
    match = _DURATION.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write 250us, 2ms or 1.5s")
    return round(float(match[1]) * _NS[match[2]])


def option(default: Any, doc: str, *, kind: str = "int", minimum: int | None = None,
           maximum: int | None = None, choices: Sequence[str] = (), unit: str = "",
           when: str = "build", kw_only: bool = True) -> Any:
    """Declare an option of a component; see :class:`Option` for the parameters.

    :param kw_only: ``False`` for the one option that goes without saying, as in ``Tap("uk0")``.
    """
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"option": dict(
        doc=doc, kind=kind, minimum=minimum, maximum=maximum, choices=tuple(choices), unit=unit,
        when=when)})


class Component:
    """Base of every component record.

    :cvar id: ``domain.name``.
    :cvar abi: version of the interface it was written for.
    :cvar features: what it can do, in the words of its interface.
    :cvar sources: C and assembly files, relative to the file that defines the class; empty for a
        component that is Python alone.
    :cvar requires: ids, ``domain`` names or ``domain:feature`` that a composition must have too.
    :cvar reference: the paper, RFC or specification it follows.
    :cvar size_first: whether images that are optimised for speed build it for size all the same,
        because measurements say that its speed is not what counts.
    :cvar side: ``"image"``: it is compiled into images; ``"host"``: it stays outside.
    """

    id: ClassVar[str] = ""
    abi: ClassVar[int] = 1
    features: ClassVar[frozenset[str]] = frozenset()
    sources: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = ""
    size_first: ClassVar[bool] = False
    side: ClassVar[str] = "image"
    options: ClassVar[tuple[Option, ...]] = ()

    if TYPE_CHECKING:  # options take every spelling that Option.parse does
        def __init__(self, *values: Any, **options: Any) -> None: ...

    def __post_init__(self) -> None:
        problems = []
        for spec in self.options:
            try:
                object.__setattr__(self, spec.name, spec.parse(getattr(self, spec.name)))
            except ValueError as error:
                problems.append(f"{self.id}.{spec.name}: {error}")
        if problems:
            raise CompositionError(problems)

    @classmethod
    def domain(cls) -> str:
        """Return the interface it implements: the first word of its id."""
        return cls.id.partition(".")[0]

    @classmethod
    def stem(cls) -> str:
        """Return the name within its domain: file stem, extension and symbol are built from it."""
        return cls.id.partition(".")[2]

    @classmethod
    def symbol(cls) -> str:
        """Return the one C symbol it exports, ``kit_alloc_tlsf`` for ``alloc.tlsf``."""
        return "kit_" + cls.id.replace(".", "_")

    @classmethod
    def folder(cls) -> Path:
        """Return the folder of the file that defines the class; sources are relative to it."""
        return Path(inspect.getfile(cls)).resolve().parent

    @classmethod
    def source_files(cls) -> tuple[Path, ...]:
        """Return its C and assembly files as absolute paths."""
        return tuple(cls.folder() / name for name in cls.sources)

    @classmethod
    def extension(cls) -> str:
        """Return the name of its extension module, ``unikit.alloc._tlsf`` for ``alloc.tlsf``."""
        package = cls.__module__.rpartition(".")[0]
        if cls.__module__.rpartition(".")[2] != cls.stem():  # defined in a package's __init__
            package = cls.__module__.removesuffix("." + cls.stem())
        return f"{package}._{cls.stem()}" if package else f"_{cls.stem()}"

    def layers(self) -> tuple[Component, ...]:
        """Return what it consists of, from the outside in: layers, then what they stand on."""
        return (self,)

    def encoded(self) -> list[int]:
        """Return the option values in C's form and order (``rt/opt.h``)."""
        return [spec.encode(getattr(self, spec.name)) for spec in self.options
                if spec.reaches_c]

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their default, by name; components left out."""
        return {spec.name: getattr(self, spec.name) for spec in self.options
                if spec.kind != "component"
                and getattr(self, spec.name) != spec.parse(spec.default)}


_C = TypeVar("_C", bound=type[Component])


def component(cls: _C) -> _C:
    """Make a class a component record: a frozen, keyword-only dataclass with validated options.

    :raises CompositionError: the record itself is wrong; every mistake is listed.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)  # type: ignore[assignment]
    problems = []
    where = f"{cls.__module__}.{cls.__qualname__}"
    if not _ID.match(cls.id):
        problems.append(f"{where}: id {cls.id!r} must look like domain.name in lower case")
    elif cls.domain() not in INTERFACES:
        problems.append(f"{where}: {cls.domain()!r} is no interface; known: "
                        f"{', '.join(INTERFACES)}")
    if not inspect.getdoc(cls) or cls.__doc__ is None or cls.__doc__.startswith(cls.__name__ + "("):
        problems.append(f"{where}: a docstring is missing")
    if cls.side not in ("image", "host"):
        problems.append(f"{where}: side is {cls.side!r}; allowed: image, host")
    if not isinstance(cls.abi, int) or cls.abi < 1:
        problems.append(f"{where}: abi is {cls.abi!r}; it counts from 1")
    specs = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        meta = field.metadata.get("option")
        if meta is None:
            problems.append(f"{where}.{field.name}: declare it with option()")
            continue
        spec = Option(name=field.name, default=field.default, **meta)
        if spec.kind not in KINDS:
            problems.append(f"{where}.{field.name}: kind {spec.kind!r}; allowed: "
                            f"{', '.join(KINDS)}")
            continue
        if spec.kind == "ratio" and spec.when == "boot":
            problems.append(f"{where}.{field.name}: a ratio is fixed at build time")
        if spec.when not in ("build", "boot"):
            problems.append(f"{where}.{field.name}: when is {spec.when!r}; allowed: build, boot")
        if spec.kind == "component" and (len(spec.choices) != 1
                                         or spec.choices[0] not in INTERFACES):
            problems.append(f"{where}.{field.name}: choices must name one interface")
        if not spec.doc:
            problems.append(f"{where}.{field.name}: say what it does")
        try:
            spec.parse(spec.default)
        except ValueError as error:
            problems.append(f"{where}.{field.name}: default {error}")
        specs.append(spec)
    if problems:
        raise CompositionError(problems)
    cls.options = tuple(specs)
    return cls
