"""The record base of all allocators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unikit import registry
from unikit.component import Component, option, parse_size
from unikit.errors import CompositionError, NotSupported

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from unikit.alloc.heap import Heap

DEFAULT = "tlsf"
"""The allocator that is taken where none is named."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What an allocator promises for the worst case; 0: nothing.

    :ivar alloc_instructions: most that one request executes.
    :ivar free_instructions: most that one block given back executes.
    :ivar memory: bytes of a region that refuses no sequence of requests within the limits.
    """

    alloc_instructions: int
    free_instructions: int
    memory: int


class Allocator(Component):
    """Base of every allocator's record; ``features`` are those of ``alloc.h`` in lower case.

    A record is a choice; :meth:`open` makes it live in this process.

    :cvar for_process: option values that suit a whole Linux program, where they differ from the
        defaults, which are made for images; ``unikit alloc`` starts from them.
    :cvar relocatable: whether its memory holds no address of its code or constants beside the table
        of operations at the start, so that processes that have its code at different addresses can
        share a heap.
    """

    for_process: ClassVar[Mapping[str, Any]] = {}
    relocatable: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if ("layer" in cls.features) != hasattr(cls, "alone"):
            raise CompositionError([f"{cls.id or cls.__qualname__}: a record with the feature "
                                    "layer derives from Layer, and no other does"])

    def sole_defines(self) -> tuple[str, ...]:
        """Return macros for a build in which this is the only allocator, with these options."""
        return ()

    def open(self, region: WriteableBuffer | int | str, *, threads: bool = False) -> Heap:
        """Open the allocator over memory of this process, or over memory that processes share.

        :param region: any writable contiguous buffer (:func:`unikit.alloc.region`, ``bytearray``,
            ``mmap``), which the heap keeps alive and pinned until it is closed; or a size, for
            memory of the heap's own. Over a region made with ``shared=True`` every process that
            opens it gets the same heap, a :class:`unikit.alloc.shared.SharedHeap`.
        :param threads: let several threads use the heap at once.
        :raises OutOfMemory: the memory is too small for this allocator.
        :raises InvalidArgument: the buffer is not writable and contiguous.

        >>> from unikit.alloc import Tlsf
        >>> with Tlsf().open("1M") as heap:
        ...     block = heap.alloc(100)
        ...     block[:5] = b"hello"
        ...     bytes(block[:5])
        b'hello'
        """
        from unikit.alloc.heap import Heap
        from unikit.alloc.memory import Region
        if isinstance(region, Region) and region.kind == "shared":
            from unikit.alloc.shared import SharedHeap
            return SharedHeap(self, region)
        return Heap(self, region, threads)

    def bounds(self, live: int | str, largest: int | str) -> Bounds:
        """Return the promises for programs within limits.

        :param live: most bytes requested and not yet freed, a request counted in multiples of 16
            bytes. The bound on memory is one for blocks allocated and freed, not resized.
        :param largest: most bytes of one request.
        :raises NotSupported: the allocator promises nothing.
        """
        from unikit.ffi import load
        component = load.component(self)
        if not component.bounds:
            raise NotSupported(f"{self.id} promises nothing for the worst case")
        out = load.abi()[0].new("struct kit_alloc_bounds *")
        component.bounds(load.options(self), parse_size(live), parse_size(largest), out)
        return Bounds(**{field.name: int(getattr(out, field.name))
                         for field in dataclasses.fields(Bounds)})

    def worst_memory(self, live: int | str, largest: int | str) -> int:
        """Return how many bytes of memory suffice whatever the program does; see :meth:`bounds`.

        :raises NotSupported: the allocator has no such promise.

        >>> from unikit.alloc import Buddy
        >>> Buddy(exact=False).worst_memory("1M", 4096) / 2**20 < 17.5
        True
        """
        memory = self.bounds(live, largest).memory
        if not memory:
            raise NotSupported(f"{self!r} promises no bound on memory for {live} bytes in blocks "
                               f"of up to {largest}")
        return memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer(Allocator):
    """Base of a layer's record: an allocator that stands on another one, ``Guard(Tlsf())``.

    The class's ``features`` are all that it can ever do; those of a record are what it can do over
    the allocator that it stands on.

    :cvar alone: those of its features that it has over any allocator.
    :cvar below: features that the allocator below it must have.
    """

    features = frozenset({"layer"})
    alone: ClassVar[frozenset[str]] = frozenset()
    below: ClassVar[frozenset[str]] = frozenset()

    inner: Allocator | None = option(
        None, "what it stands on; if it is not said, the default allocator", kind="component",
        choices=("alloc",), kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        first, *others = self.layers()
        below = others[0]
        problems = [f"{first.id}: is there twice; a layer cannot stand on itself"
                    for each in others if each.id == first.id]
        problems += [f"{first.id}: needs an allocator with {word} below it; {below.id} has "
                     f"{', '.join(sorted(below.features)) or 'no features'}"
                     for word in sorted(self.below - below.features)]
        if problems:
            raise CompositionError(problems)
        able = self.alone | below.features | {"layer"}
        object.__setattr__(self, "features", type(self).features & able)

    def layers(self) -> tuple[Component, ...]:
        """Return what it consists of, from the outside in: layers, then what they stand on."""
        inner = self.inner or registry.find(DEFAULT, "alloc")()
        return (self, *inner.layers())


def sources(record: type[Allocator] | Allocator) -> list[Path]:
    """Return the C files that a project compiles to have an allocator without unikit at run time.

    With ``-I`` :func:`unikit.get_include`. The last file is a ``kit_panic`` that prints and aborts;
    it gives way to one of the project's own. ``unikit export`` writes the same files, the headers,
    a Makefile and a pkg-config file into a folder.

    >>> from unikit.alloc import Tlsf
    >>> sources(Tlsf)[0].name, sources(Tlsf)[-1].name
    ('tlsf.c', 'host_panic.c')
    """
    files = [path for layer in (record.layers() if isinstance(record, Allocator) else [record])
             for path in layer.source_files()]
    return [*files, Path(__file__).resolve().parents[1] / "rt/host_panic.c"]
