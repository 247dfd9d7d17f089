"""NumPy arrays in a heap: single ones, and all that a piece of code makes (NEP 49).

NumPy is imported here alone, and only when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from unikit.alloc.blocks import Owned
from unikit.alloc.shared import SharedHeap
from unikit.alloc.tenant import Tenant
from unikit.errors import InvalidArgument, NotSupported
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.heap import Heap


class Arrays(Tenant):
    """NumPy as a user of a heap; what :func:`numpy_handler` gives to its block.

    :ivar heap: where the arrays come from.
    """

    def __init__(self, heap: Heap, align: int) -> None:
        heap._share()  # NumPy allocates in any thread
        super().__init__(heap, align=align, crowd=True)
        self._handler = self._ffi.new("struct kit_numpy_handler *", {"name": b"unikit"})

    def __repr__(self) -> str:
        return f"<Arrays: {self.live} live of {self.made} made, in {self.heap!r}>"


@contextmanager
def numpy_handler(heap: Heap, *, align: int = 64) -> Iterator[Arrays]:
    """Let NumPy take the memory of all new arrays from a heap while the block runs (NEP 49).

    That is ``np.empty`` and all that makes or grows arrays, in this thread's context: other threads
    and tasks keep what they have, and those that are started inside a copied context take the heap
    too. Each array goes back to the allocator it came from, whenever that is, and keeps the heap
    alive; the heap cannot be closed before (:class:`BufferError`). When the heap is full, NumPy
    raises :class:`MemoryError`. From here on the heap may be used by several threads.

    :param heap: any heap of this process alone; arrays in a shared one come from
        :meth:`~unikit.alloc.Heap.ndarray`.
    :param align: of the data, a power of two; NumPy itself has 16.
    :raises ImportError: NumPy is not installed.
    :raises NotSupported: it is older than 1.22, or the heap is shared between processes.

    >>> import numpy
    >>> from unikit.alloc import Tlsf
    >>> with Tlsf().open("1M") as heap:
    ...     with numpy_handler(heap) as arrays:
    ...         table = numpy.zeros((100, 10))
    ...     arrays.live, table.ctypes.data % 64
    ...     del table
    (1, 0)
    """
    api = _api()
    if isinstance(heap, SharedHeap):  # NumPy would wait for others with the interpreter's lock
        raise NotSupported("all arrays from a heap that processes share: make single ones with "
                           "heap.ndarray()")
    arrays = Arrays(heap, align)
    ffi, lib = load.extension("unikit.alloc._host")
    table = ffi.cast("void *", id(api))
    before = ffi.new("void **")
    load.check(lib.kit_numpy_enter(table, arrays._handler, arrays._c, before),
               "setting NumPy's data handler")
    try:
        yield arrays
    finally:
        load.check(lib.kit_numpy_leave(table, before[0]), "restoring NumPy's data handler")


def make(heap: Heap, shape: int | tuple[int, ...], dtype: Any, align: int, order: str) -> Any:
    """Return an uninitialised array in a heap; see :meth:`unikit.alloc.Heap.ndarray`."""
    numpy = _numpy()
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise InvalidArgument(f"an array of {kind} in a heap: it holds Python objects, which the "
                              "heap cannot free; choose a type without")
    extent = (shape,) if isinstance(shape, int) else tuple(shape)
    size = kind.itemsize
    for length in extent:
        size *= int(length)
    size, align = heap._check_request(size, align)
    if not size:
        return numpy.empty(extent, kind, order)
    heap._share()
    memory = Owned(heap, heap._take(size, align), size, align, heap._serial)
    heap._owned[memory._address] = memory
    return numpy.ndarray(extent, kind, memory, order=order)


@cache
def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise ImportError("NumPy is not installed; get it with: pip install numpy") from error


def _api() -> Any:
    """Return the capsule with NumPy's table of C functions."""
    numpy = _numpy()
    if tuple(int(part) for part in numpy.__version__.split(".")[:2]) < (1, 22):
        raise NotSupported(f"NumPy {numpy.__version__} has no data handlers (NEP 49); take 1.22 "
                           "or later")
    home = "numpy._core" if int(numpy.__version__.split(".")[0]) >= 2 else "numpy.core"
    return importlib.import_module(f"{home}._multiarray_umath")._ARRAY_API
