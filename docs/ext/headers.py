"""Sphinx directive ``c-header``: turn a C header's declarations and comments into reference text.

The comments of the headers are the contracts; nothing is written twice. A comment belongs to the
declarations that follow it up to the next blank line; ``/* ---- title ---- */`` starts a part.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

ROOT = Path(__file__).resolve().parents[2]

_TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/)|(?P<macro>^#(?:[^\n\\]|\\\n|\\.)*)|(?P<blank>\n[ \t]*\n)|"
    r"(?P<text>[^/#\n]+|.|\n)", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^-{3,} (.+?) -*$")
_SKIP = re.compile(r"SPDX-License-Identifier|^cdef: ")
_KINDS = (
    ("struct", re.compile(r"^struct (\w+)\s*\{")),
    ("union", re.compile(r"^union (\w+)\s*\{")),
    ("enum", re.compile(r"^enum(?: (\w+))?\s*\{")),
    ("type", re.compile(r"^typedef\b.*?\(\*(\w+)\)|^typedef\b.*?(\w+);$", re.DOTALL)),
    ("function", re.compile(r"^[\w\s*]+?\b(\w+)\s*\([^{]*\);?$", re.DOTALL)),
)


@dataclasses.dataclass
class Entry:
    """One declaration, or the title of a part (kind ``title``), with the comment before it."""

    kind: str
    name: str
    code: str
    comment: str = ""
    note: str = ""  # what stands behind it on its line


def plain(comment: str) -> str:
    """Return a comment's text without its marks, paragraphs kept."""
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in comment[2:-2].splitlines()]
    return "\n".join(lines).strip()


def escape(text: str) -> str:
    """Make reST of plain comment text: only `code` keeps a meaning."""
    parts = re.split(r"`([^`\n]+)`", text)
    out = ""
    for index, part in enumerate(parts):
        out += f"``{part}``" if index % 2 else re.sub(r"([\\*_|`])", r"\\\1", part)
    return out


def parse(text: str) -> tuple[str, list[Entry]]:
    """Return the header's opening comment and its entries in order."""
    intro, entries, comment, code, depth, seen = "", [], "", "", 0, False

    def finish(trailing: str = "") -> None:
        nonlocal code
        entry = classify(code.strip(), comment or trailing)
        if entry:
            entries.append(entry)
        code = ""

    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup, match[0]
        if kind == "comment" and depth == 0:
            body = plain(value)
            if _SKIP.search(body):
                continue
            title = _TITLE.match(body)
            if title:
                entries.append(Entry("title", title[1], ""))
            elif entries and not code.strip() and on_same_line(text, match.start()):
                entries[-1].note = body
            elif not seen and not intro:
                intro = body
            else:
                comment = body
        elif kind == "macro" and depth == 0:
            define = re.match(r"#define (KIT_\w+(?:\([^)]*\))?)\s", value + " ")
            if define and comment and not define[1].endswith("_H"):
                entries.append(Entry("macro", define[1], value, comment))
            seen = seen or "include" in value or "define" in value
            comment = ""
        elif kind == "blank" and depth == 0:
            if not code.strip():
                comment, code = "", ""
            else:
                code += value
        else:
            code += value
            depth += value.count("{") - value.count("}")
            if depth == 0 and (code.rstrip().endswith(";")
                               or (code.rstrip().endswith("}") and "KIT_INLINE" in code)):
                finish()
    return intro, entries


def on_same_line(text: str, position: int) -> bool:
    """Whether something other than blanks stands before this position on its line."""
    return bool(text[text.rfind("\n", 0, position) + 1:position].strip())


def classify(code: str, comment: str) -> Entry | None:
    """Return the entry for a declaration, or None for what is none (forward declarations)."""
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    bare = re.sub(r"\s*__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", bare)
    bare = re.sub(r"^(KIT_INLINE|KIT_HIDDEN|extern)\s+", "", bare.strip())
    if bare.startswith("struct") and "{" not in bare and "(" not in bare:
        return None
    if re.match(r"^typedef struct (\w+) \w+;$", bare):
        return None
    if bare.startswith("typedef struct {"):
        return Entry("type", bare.rstrip(";").split()[-1], code, comment)
    if "(" in bare.partition("{")[0] and "{" in bare:  # the body of a dispatcher
        bare = bare[:bare.index("{")].strip()
    for kind, pattern in _KINDS:
        match = pattern.match(bare)
        if match:
            name = next((group for group in match.groups() if group), "")
            shown = " ".join(bare.rstrip(";").split()) if kind == "function" else code
            return Entry(kind, name, shown, comment)
    return None


def groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Join neighbouring functions that one comment speaks of."""
    group: list[Entry] = []
    for entry in entries:
        joins = group and entry.kind == group[0].kind == "function" and \
            entry.comment == group[0].comment
        if not joins and group:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def notes(group: list[Entry]) -> list[str]:
    """Return a paragraph for each remark behind a declaration, neighbours with the same joined."""
    found: dict[str, list[str]] = {}
    for entry in group:
        if entry.note:
            found.setdefault(entry.note, []).append(entry.name)
    lines: list[str] = []
    for note, names in found.items():
        whose = "" if len(group) == 1 else ", ".join(f"``{name}``" for name in names) + ": "
        lines += [f"   {whose}{escape(' '.join(note.split()))}", ""]
    return lines


def rst(header: str) -> list[str]:
    """Return the reference text of a header."""
    intro, entries = parse((ROOT / header).read_text())
    lines = ["", f".. rubric:: ``#include <{header}>``", ""]
    lines += escape(intro).splitlines() + [""]
    for group in groups(entries):
        first = group[0]
        text = [f"   {line}" for line in escape(first.comment).splitlines()] + [""]
        text += notes(group)
        if first.kind == "title":
            lines += ["", f".. rubric:: {escape(first.name)}", ""]
        elif first.kind == "function":
            signatures = [entry.code for entry in group]
            lines += [f".. c:function:: {signatures[0]}"]
            lines += [f"              {signature}" for signature in signatures[1:]]
            lines += ["", *text]
        else:
            # Tags live in a name space of their own in C, but not in Sphinx: no c:struct here.
            lines += [f".. _c-{first.kind}-{first.name}:", ""] if first.name else []
            lines += [".. container:: declaration", ""]
            code = [f"      {line}".rstrip() for line in first.code.splitlines()]
            lines += [*text, "   .. code-block:: c", "", *code, ""]
    return lines


class Header(SphinxDirective):
    """``.. c-header:: unikit/alloc/alloc.h``"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the generated text in place."""
        header = self.arguments[0]
        self.env.note_dependency(str(ROOT / header))
        container = nodes.section()
        container.document = self.state.document
        nested_parse_with_titles(self.state, StringList(rst(header), header), container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("c-header", Header)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
