"""Sphinx directives that walk the registry and the package.

``components DOMAIN`` writes the reference of every component of a domain from its record;
``modules PACKAGE`` the Python reference of a package's public modules; ``exceptions`` the table
of every exception and exit code.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

from unikit import cli, errors, registry
from unikit.component import Component, Option


def text_of(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """Parse generated reST where the directive stands."""
    container = nodes.section()
    container.document = directive.state.document
    nested_parse_with_titles(directive.state, StringList(lines, "generated"), container)
    return container.children


def table(header: list[str], rows: list[list[str]], widths: str) -> list[str]:
    """Return a list-table."""
    lines = ["", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [header, *rows]:
        for index, cell in enumerate(row):
            lines.append(f"   {'* -' if index == 0 else '  -'} {cell}")
    return [*lines, ""]


def shown(spec: Option, value: object) -> str:
    """Return a default as people write it."""
    if spec.kind == "bool":
        return f"``{str(value).lower()}``"
    return f"``{value}``" if value not in ("", None) else "none"


def options(record: type[Component]) -> list[str]:
    """Return the table of a component's options."""
    if not record.options:
        return ["", "No options.", ""]
    rows = []
    for spec in record.options:
        doc = spec.doc.strip().rstrip(".")
        rows.append([f"``{spec.name}``", doc[:1].upper() + doc[1:] + ".", spec.allowed(),
                     shown(spec, spec.default), spec.when])
    return table(["option", "what it does", "allowed", "default", "fixed at"], rows,
                 "14 38 26 12 10")


def component(record: type[Component]) -> list[str]:
    """Return the reference of one component."""
    entry = registry.entries()[record.id]
    lines = [f".. _component-{record.id}:", "", record.id, "^" * len(record.id), ""]
    lines += (inspect.getdoc(record) or "").splitlines()
    lines += ["", f":class: :class:`{record.__module__}.{record.__name__}`"]
    if record.features:
        lines.append(":features: " + ", ".join(f"``{word}``" for word in sorted(record.features)))
    if record.requires:
        lines.append(":requires: " + ", ".join(f"``{word}``" for word in record.requires))
    if record.sources:
        lines.append(":sources: " + ", ".join(f"``{name}``" for name in record.sources))
    lines.append(":side: " + ("compiled into images" if record.side == "image"
                              else "stays on the host"))
    lines.append(f":interface version: {record.abi}")
    if record.reference:
        lines.append(f":reference: {record.reference}")
    if entry.distribution != registry.DISTRIBUTION:
        lines.append(f":from: {entry.distribution}")
    return [*lines, "", *options(record), ""]


def public_modules(package: str) -> Iterator[str]:
    """Yield a package and its public modules; applications and tests are none."""
    yield package
    module = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())),
                       key=lambda each: each.name):
        if info.name.startswith("_"):
            continue
        name = f"{package}.{info.name}"
        if info.ispkg:
            yield from public_modules(name)
        else:
            yield name


class Components(SphinxDirective):
    """``.. components:: alloc``"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write one section per component of the domain."""
        self.env.note_reread()
        records = registry.components(self.arguments[0])
        lines = [line for record in records for line in component(record)]
        return text_of(self, lines or ["None is installed."])


class Modules(SphinxDirective):
    """``.. modules:: unikit.alloc`` with the package's modules; ``:single:`` its text alone."""

    required_arguments = 1
    option_spec = {"single": lambda value: True, "flat": lambda value: True}

    def run(self) -> list[nodes.Node]:
        """Write one automodule per public module."""
        package = self.arguments[0]
        single = "single" in self.options
        names = [package] if single else list(public_modules(package))
        if "flat" in self.options:
            path = importlib.import_module(package).__path__
            names = [f"{package}.{info.name}" for info in pkgutil.iter_modules(path)
                     if not info.ispkg and not info.name.startswith("_")]
        lines: list[str] = []
        for name in names:
            lines += [name, "^" * len(name), "", f".. automodule:: {name}",
                      *([] if single else ["   :members:", "   :show-inheritance:",
                                           "   :member-order: bysource"]), ""]
        return text_of(self, lines)


class Exceptions(SphinxDirective):
    """``.. exceptions::``"""

    def run(self) -> list[nodes.Node]:
        """Write the table of all exception classes."""
        codes = {kind: code for code, kind in errors.CODES.items()}
        rows = []
        for kind in vars(errors).values():
            if not (isinstance(kind, type) and issubclass(kind, errors.UnikitError)):
                continue
            bases = [base.__name__ for base in kind.__bases__
                     if not issubclass(base, errors.UnikitError) and base is not Exception]
            rows.append([f":class:`~unikit.errors.{kind.__name__}`",
                         ", ".join(f"``{name}``" for name in bases) or "none",
                         f"``{codes[kind]}``" if kind in codes else "",
                         " ".join((kind.__doc__ or "").split("\n\n")[0].split())])
        return text_of(self, table(["exception", "also a", "code", "meaning"], rows,
                                   "20 20 8 52"))


def parsers(name: str, parser: argparse.ArgumentParser
            ) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield a command and those below it, each with its full name."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(f"{name} {word}", inner)


class Commands(SphinxDirective):
    """``.. commands::``"""

    def run(self) -> list[nodes.Node]:
        """Write the help text of the command and of every verb."""
        os.environ["COLUMNS"] = "96"
        top = cli.parser()
        lines: list[str] = []
        for title, parser in parsers("unikit", top):
            lines += [title, "-" * len(title), "", ".. code-block:: text", ""]
            lines += [f"   {line}".rstrip() for line in parser.format_help().splitlines()] + [""]
        return text_of(self, lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("components", Components)
    app.add_directive("modules", Modules)
    app.add_directive("exceptions", Exceptions)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
