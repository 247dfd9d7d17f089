"""Measure what embedding costs: ``python3 tests/alloc/embedding_costs.py``; prints a reST table."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator

import numpy

from unikit.alloc import Tlsf, numpy_handler, python_allocator
from unikit.ffi import load


def best(call: Callable[[], object], count: int, rounds: int = 7) -> float:
    """Return nanoseconds per item of the fastest round."""
    found = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        call()
        found.append((time.thread_time_ns() - start) / count)
    return min(found)


def repeat(call: Callable[[], object], count: int) -> Callable[[], None]:
    """Return a function that calls another one so many times."""
    def loop() -> None:
        for _ in range(count):
            call()
    return loop


def heap_rows() -> Iterator[tuple[str, float, str]]:
    """Yield the costs of a heap's own calls."""
    _, lib = load.extension("unikit.alloc._host")
    sizes = array("Q", [64] * 100_000)
    with Tlsf().open("64M") as heap, Tlsf().open("64M", threads=True) as locked:
        for name, each in (("", heap), (", with a lock", locked)):
            cost = best(lambda each=each: lib.kit_batch_cycle(each._ptr, 64, 10**5), 10**5)
            yield f"``tlsf``: alloc and free from C{name}", cost, ""
        yield ("``heap.alloc(64).free()`` from Python",
               best(repeat(lambda: heap.alloc(64).free(), 10**4), 10**4), "")
        yield ("``heap.alloc_many(...).free()``, per block",
               best(lambda: heap.alloc_many(sizes).free(), len(sizes)), "")
        yield ("``heap.ndarray(1000)``",
               best(repeat(lambda: heap.ndarray(1000), 3000), 3000),
               f"{best(repeat(lambda: numpy.empty(1000), 3000), 3000):.0f} (``np.empty``)")


def numpy_rows() -> Iterator[tuple[str, float, str]]:
    """Yield the costs of NumPy's arrays through the handler, and without."""
    with Tlsf().open("64M") as heap:
        for function in (numpy.empty, numpy.zeros):
            for size in (10, 1000, 1_000_000):
                count = 5000 if function is numpy.empty or size < 10**6 else 20
                call = repeat(lambda function=function, size=size: function(size), count)
                own = best(call, count)
                with numpy_handler(heap):
                    yield (f"``np.{function.__name__}({size})`` through the handler",
                           best(call, count), f"{own:.0f}")


def python_rows() -> Iterator[tuple[str, float, str]]:
    """Yield the costs of Python's own allocations through the hook, and without."""
    _, lib = load.extension("unikit.alloc._host")
    for domain, name in ((4, "obj"), (2, "mem"), (1, "raw")):
        for size in (32, 400, 2000):
            def call(domain: int = domain, size: int = size) -> None:
                lib.kit_python_cycle(domain, size, 100_000)

            own = best(call, 100_000)
            domains = ("raw", "mem", "obj") if name == "raw" else ("mem", "obj")
            with python_allocator(Tlsf(), domains=domains, size="64M"):
                cost = best(call, 100_000)
            yield f"domain ``{name}``, {size} bytes: malloc and free through the hook", cost, \
                f"{own:.0f}"


def main() -> None:
    """Print the table."""
    rows = [*heap_rows(), *numpy_rows(), *python_rows()]
    width = max(len(name) for name, _, _ in rows)
    rule = f"{'=' * width}  ======  {'=' * 20}"
    print(rule, f"{'what':{width}}  ns      without", rule, sep="\n")
    for name, cost, own in rows:
        print(f"{name:{width}}  {cost:<6.0f}  {own}")
    print(rule)


if __name__ == "__main__":
    main()
