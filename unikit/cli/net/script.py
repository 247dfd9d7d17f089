"""``unikit net script``: run packet scripts and count what became of them."""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

from unikit import registry
from unikit.cli.images import settings
from unikit.cli.output import table
from unikit.component import Component
from unikit.errors import CompositionError, NotFound
from unikit.testing.script import ScriptResult, run_script


def do_script(choice: argparse.Namespace) -> int:
    """Run scripts; 0: none failed, 1: at least one did."""
    record = _record(choice)
    defines = {name: value for name, _, value in
               (word.partition("=") for word in choice.define)}
    results = [run_script(path, net=record, strict=choice.strict, lenient=choice.lenient,
                          ip_version=choice.ip, defines=defines)
               for path in _files(choice.path)]
    failed = sum(result.status == "failed" for result in results)
    if choice.json:
        print(json.dumps({"stack": record.id, "scripts": [_row(each) for each in results]},
                         indent=2))
        return 1 if failed else 0
    _show(record, results, choice.verbose or len(results) == 1)
    return 1 if failed else 0


def _row(result: ScriptResult) -> dict[str, Any]:
    return {"name": result.name, "status": result.status, "reason": result.reason,
            "detail": result.detail, "notes": list(result.notes), "seconds": result.seconds}


def _record(choice: argparse.Namespace) -> Component:
    kind = registry.find(choice.net, "net")
    options, problems = {}, []
    for key, value in settings(choice.set).items():
        component, _, name = key.rpartition(".")
        if component == kind.id and name in {spec.name for spec in kind.options}:
            options[name] = value
        else:
            problems.append(f"--set {key}: {kind.id} has no such option")
    if problems:
        raise CompositionError(problems)
    return kind(**options)


def _files(paths: list[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.rglob("*.pkt")) if path.is_dir() else [path]
        if not inside:
            raise NotFound(f"{path}: there is no script (*.pkt) in this folder")
        found += inside
    return found


def _show(record: Component, results: list[ScriptResult], verbose: bool) -> None:
    if verbose:
        for result in results:
            print(result)
            for note in result.notes if len(results) == 1 else ():
                print(f"  note: {note}")
    counts = collections.Counter(result.status for result in results)
    judged = counts["passed"] + counts["failed"]
    print(f"{record.id}: {counts['passed']} of {judged} passed, {counts['failed']} failed, "
          f"{counts['unsupported']} not supported")
    reasons = collections.Counter((result.status, result.reason) for result in results
                                  if not result.passed)
    if len(results) > 1 and reasons:
        table(("scripts", "", "reason"),
              [(count, "failed" if status == "failed" else "not supported", reason)
               for (status, reason), count in reasons.most_common()])
