"""Run a conformance suite written in C and collect what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unikit.errors import UnikitError
from unikit.ffi import load

_KEPT = 20  # failures that a message shows


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One check that failed: the behaviour under test, the place in the suite, what was seen."""

    test: str
    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.test}: {self.what} ({Path(self.file).name}:{self.line})"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a suite did.

    :ivar tests: behaviours tested, those of each size and alignment counted anew.
    :ivar checks: single checks made.
    """

    tests: int
    checks: int


class NotConforming(UnikitError, AssertionError):
    """A component does not keep the contract of its interface; ``failures`` lists where."""

    def __init__(self, subject: str, failures: list[Failure]) -> None:
        self.failures = tuple(failures)
        lines = [str(failure) for failure in failures[:_KEPT]]
        if len(failures) > _KEPT:
            lines.append(f"... and {len(failures) - _KEPT} more")
        super().__init__(f"{subject} does not conform:\n  " + "\n  ".join(lines))


class Report:
    """A ``struct kit_report`` whose failures are kept as Python objects."""

    def __init__(self) -> None:
        self.ffi, self.lib = load.extension("unikit.testing._suites")
        self.failures: list[Failure] = []
        self._fail = self.ffi.callback(
            "void(void *, const char *, const char *, int, const char *)", self._on_fail)
        self._ptr = self.ffi.new("struct kit_report *", {"fail": self._fail})

    def run(self, suite: Callable[..., int], *arguments: Any, doing: str) -> None:
        """Call a suite's entry with the arguments and this report.

        :raises Panic: the component panicked; the message names the test.
        :raises UnikitError: the suite itself could not run.
        """
        result = suite(*arguments, self._ptr)
        if result < 0:
            load.check(result, f"{doing}, test {self.test!r}")

    @property
    def test(self) -> str:
        """The test that ran last."""
        return self._text(self._ptr.test) if self._ptr.test else ""

    def outcome(self, subject: str) -> Outcome:
        """Return the counts of all runs so far.

        :raises NotConforming: a check failed.
        """
        if self.failures:
            raise NotConforming(subject, self.failures)
        return Outcome(tests=self._ptr.tests, checks=self._ptr.checks)

    def _on_fail(self, _context: Any, test: Any, file: Any, line: int, what: Any) -> None:
        self.failures.append(Failure(self._text(test), self._text(file), line, self._text(what)))

    def _text(self, text: Any) -> str:
        found = self.ffi.string(text)
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
