"""Read the parts of C headers that Python sees.

A header marks them with ``/* cdef: begin */`` and ``/* cdef: end */``; between the marks stands
plain C without attributes or conditionals. ``KIT_INLINE`` functions are dispatchers: Python sees
their prototypes, and calls them through generated guards that survive a panic.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package; ``#include <unikit/...>`` is relative to it."""

INTERFACE_HEADERS = (
    "unikit/rt/error.h", "unikit/rt/list.h", "unikit/platform/env.h", "unikit/alloc/alloc.h",
    "unikit/sched/sched.h", "unikit/net/netif.h", "unikit/net/net.h", "unikit/net/netif/host.h",
    "unikit/platform/console/console.h", "unikit/ffi/hooks/abi.h",
)
"""Headers whose marked regions make up ``unikit._abi``, in order of dependence."""

_REGION = re.compile(r"/\* cdef: begin \*/(.*?)/\* cdef: end \*/", re.DOTALL)
_INLINE = re.compile(r"KIT_INLINE\s+([^{};]+?)\s*\{.*?\n\}", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_PROTOTYPE = re.compile(
    r"^(?P<result>(?:const\s+)?(?:struct\s+|enum\s+)?\w+[\s*]+)(?P<name>kit_\w+)\s*"
    r"\((?P<params>(?:[^()]|\([^()]*\))*)\)\s*;", re.MULTILINE)
_PARAM_NAME = re.compile(r"\(\s*\*\s*(\w+)\s*\)|(\w+)\s*(?:\[\w*\])?\s*$")


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A function prototype as it stands in a header."""

    result: str
    name: str
    params: str

    def arguments(self) -> list[str]:
        """Return the names of the parameters."""
        names = []
        for part in _split(self.params):
            match = _PARAM_NAME.search(part)
            if part != "void" and match:
                names.append(match[1] or match[2])
        return names

    def guarded_result(self) -> str:
        """Return the result type Python sees: ``int`` (0 or ``KIT_EPANIC``) for ``void``."""
        return "int" if self.result == "void" else self.result

    def prototype(self) -> str:
        """Return what the cdef of a guarded function says."""
        return f"{self.guarded_result()} {self.name}({self.params});"

    def guard(self) -> str:
        """Return C for a wrapper that survives a panic, and a macro that puts it in place."""
        call = f"{self.name}({', '.join(self.arguments())})"
        if self.result == "void":
            body = f"    KIT_GUARDED({call}, return KIT_EPANIC);\n    return 0;\n"
        else:
            failed = "KIT_EPANIC" if self.result == "int" else "0"
            body = (f"    {self.result} result;\n"
                    f"    KIT_GUARDED(result = {call}, return {failed});\n    return result;\n")
        return (f"static {self.guarded_result()} kit_guarded_{self.name}({self.params})\n"
                f"{{\n{body}}}\n#define {self.name}(...) kit_guarded_{self.name}(__VA_ARGS__)\n")


def _split(params: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for letter in params:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()]


def region(header: str | Path, root: Path = ROOT) -> str:
    """Return the marked regions of a header, dispatchers as prototypes, without comments.

    :param header: path relative to ``root``, or absolute.
    :raises ValueError: the header marks nothing.
    """
    path = root / header
    found = _REGION.findall(path.read_text())
    if not found:
        raise ValueError(f"{path}: no region between 'cdef: begin' and 'cdef: end'")
    text = _INLINE.sub(lambda match: match[1] + ";", "\n".join(found))
    return _COMMENT.sub("", text)


def prelude(headers: Iterable[str] = ()) -> str:
    """Return the includes of a generated extension."""
    names = ("unikit/ffi/hooks/guard.h", *INTERFACE_HEADERS, *headers)
    return "\n".join(f"#include <{name}>" for name in names)


def functions(text: str) -> list[Function]:
    """Return the function prototypes in a text made by :func:`region`."""
    outside = re.sub(r"\{[^{}]*\}", "{}", text)
    return [Function(" ".join(match["result"].split()), match["name"],
                     " ".join(match["params"].split()))
            for match in _PROTOTYPE.finditer(outside)]


def declarations(text: str) -> str:
    """Return a text made by :func:`region` without its function prototypes."""
    names = {function.name for function in functions(text)}

    def keep(match: re.Match[str]) -> str:
        return "" if match["name"] in names else match[0]

    return _PROTOTYPE.sub(keep, text)


def guarded(texts: Iterable[str], unguarded: frozenset[str] = frozenset()) -> tuple[str, str]:
    """Return (cdef, C source of the guards) for texts made by :func:`region`."""
    cdef, source = [], []
    for text in texts:
        cdef.append(declarations(text))
        for function in functions(text):
            if function.name in unguarded:
                cdef.append(f"{function.result} {function.name}({function.params});")
            else:
                cdef.append(function.prototype())
                source.append(function.guard())
    return "\n".join(cdef), "\n".join(source)
