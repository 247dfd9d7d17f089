"""Sphinx directive ``conformance``: which clause is tested where, and which line implements it.

Nothing is written down twice: comments in the code cite ``RFC 9293, 3.10.7.4``, the heads of packet
scripts ``// RFC 9293 3.10.7.4 fifth ACK``, docstrings of tests cite as the code does.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests/net/scripts"
UNTESTED = SCRIPTS / "untested.txt"

Clause = tuple[int, str]
_CITE = re.compile(r"RFC\s+(\d+)(?:,?\s+(?:section\s+)?(\d+(?:\.\d+)+|\d+\b(?!\s*,?\s*RFC)))?")
_SCRIPT = re.compile(r"^// RFC (\d+)(?: (\d+(?:\.\d+)*))?(?:\s|$)", re.MULTILINE)
_LIST = re.compile(r"^RFC (\d+)(?: (\d+(?:\.\d+)*))?: \S")


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A line of a file, relative to the root of the project."""

    path: str
    line: int


def code_cites() -> dict[Clause, list[Place]]:
    """Return the clauses that comments of the network code cite, with their sections."""
    found: dict[Clause, list[Place]] = defaultdict(list)
    for path in sorted((ROOT / "unikit/net").rglob("*.[ch]")):
        text = path.read_text()
        for comment in re.finditer(r"/\*.*?\*/", text, re.DOTALL):
            plain = re.sub(r"\n \* ", "\n   ", comment.group())
            for cite in _CITE.finditer(plain):
                if cite[2] and not _is_list(plain, cite):
                    line = text.count("\n", 0, comment.start() + cite.start()) + 1
                    found[int(cite[1]), cite[2]].append(
                        Place(path.relative_to(ROOT).as_posix(), line))
    return found


def _is_list(text: str, cite: re.Match[str]) -> bool:
    """Whether the number behind the comma is another RFC: «RFC 5681, 6298»."""
    return "." not in cite[2] and int(cite[2]) > 99


def script_cites(folder: Path = SCRIPTS) -> dict[Path, list[Clause]]:
    """Return what each script cites in the comments before its first event."""
    found = {}
    for path in sorted(folder.rglob("*.pkt")):
        head = path.read_text().split("\n   0 ", 1)[0]
        found[path] = [(int(cite[1]), cite[2] or "") for cite in _SCRIPT.finditer(head)]
    return found


def test_cites() -> dict[Clause, list[Place]]:
    """Return what docstrings and comments of the network tests cite."""
    found: dict[Clause, list[Place]] = defaultdict(list)
    for path in sorted((ROOT / "tests/net").rglob("test_*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for cite in _CITE.finditer(line):
                if cite[2] and not _is_list(line, cite):
                    found[int(cite[1]), cite[2]].append(
                        Place(path.relative_to(ROOT).as_posix(), number))
    return found


def untested() -> tuple[set[Clause], list[str]]:
    """Return the clauses and the folders that the list excuses."""
    clauses, folders = set(), []
    for line in UNTESTED.read_text().splitlines():
        if match := _LIST.match(line):
            clauses.add((int(match[1]), match[2] or ""))
        elif line and not line.startswith("#"):
            folders.append(line.partition(":")[0])
    return clauses, folders


def covers(tested: Clause, cited: Clause) -> bool:
    """Whether a test of one clause speaks of another: the same, or one within the other."""
    return tested[0] == cited[0] and (
        tested[1] == cited[1] or tested[1].startswith(cited[1] + ".")
        or (tested[1] != "" and cited[1].startswith(tested[1] + ".")))


def problems() -> list[str]:
    """Say what keeps the matrix from being whole."""
    scripts = script_cites()
    found = [f"{path.relative_to(ROOT)}: cites no clause; begin it with // RFC 9293 3.10.7.4"
             for path, cites in scripts.items() if not cites]
    tested = {cite for cites in scripts.values() for cite in cites} | set(test_cites())
    excused, folders = untested()
    code = code_cites()
    for clause, places in sorted(code.items()):
        open_places = [place for place in places
                       if not any(place.path.startswith(folder) for folder in folders)]
        covered = any(covers(each, clause) for each in tested)
        if open_places and not covered and clause not in excused:
            found.append(f"{open_places[0].path}:{open_places[0].line}: RFC {clause[0]}, "
                         f"{clause[1]} has no test; write a script that cites it, or add «RFC "
                         f"{clause[0]} {clause[1]}: reason» to {UNTESTED.relative_to(ROOT)}")
        if covered and clause in excused:
            found.append(f"{UNTESTED.relative_to(ROOT)}: RFC {clause[0]} {clause[1]} is tested")
    return found + [f"{UNTESTED.relative_to(ROOT)}: nobody cites RFC {number} {section}"
                    for number, section in sorted(excused - set(code))]


def _section(clause: Clause) -> tuple[int, list[int]]:
    return clause[0], [int(part) for part in clause[1].split(".") if part]


def rows() -> Iterator[tuple[str, list[str], list[Place], list[Place]]]:
    """Yield (clause, scripts, tests, lines of code), in the order of clauses."""
    scripts: dict[Clause, list[str]] = defaultdict(list)
    for path, cites in script_cites().items():
        for cite in dict.fromkeys(cites):
            scripts[cite].append(path.relative_to(SCRIPTS).with_suffix("").as_posix())
    tests, code = test_cites(), code_cites()
    for clause in sorted({*scripts, *tests, *code}, key=_section):
        yield (f"RFC {clause[0]}" + (f", {clause[1]}" if clause[1] else ""),
               scripts.get(clause, []), tests.get(clause, []), code.get(clause, []))


def page() -> str:
    """Return the matrix as reST."""
    out = [".. list-table::", "   :header-rows: 1", "   :widths: 15 50 35", "",
           "   * - clause", "     - tested by", "     - implemented at"]
    for clause, scripts, tests, code in rows():
        by = [f"``{name}``" for name in scripts]
        by += [f"``{path}``" for path in sorted({place.path.removeprefix("tests/net/")
                                                  for place in tests})]
        at = [f"``{place.path.removeprefix('unikit/net/')}:{place.line}``" for place in code]
        out += [f"   * - {clause}", f"     - {', '.join(by) or 'not yet'}",
                f"     - {', '.join(at) or 'without a comment'}"]
    return "\n".join(out)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx; a matrix with holes fails the build."""
    from docutils.statemachine import StringList
    from sphinx.errors import ExtensionError
    from sphinx.util.docutils import SphinxDirective
    from sphinx.util.nodes import nested_parse_with_titles

    class Conformance(SphinxDirective):
        """The matrix of clauses, tests and code."""

        def run(self) -> list[Any]:
            from docutils import nodes
            if holes := problems():
                raise ExtensionError("\n".join(holes))
            for path in (*SCRIPTS.rglob("*.pkt"), UNTESTED):
                self.env.note_dependency(str(path))
            node = nodes.section()
            node.document = self.state.document
            nested_parse_with_titles(self.state, StringList(page().splitlines(), "conformance"),
                                     node)
            return list(node.children)

    app.add_directive("conformance", Conformance)
    return {"parallel_read_safe": True}
