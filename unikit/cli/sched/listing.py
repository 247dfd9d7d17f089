"""``unikit sched list``: what there is to choose from."""

from __future__ import annotations

import argparse
import inspect
import json

from unikit import registry
from unikit.cli.output import table

_KNOWS = {"threads": "stacks", "priorities": "priorities", "weights": "weights",
          "reservations": "reservations", "preemption": "preemption",
          "cpus": "several processors"}


def do_list(choice: argparse.Namespace) -> int:
    """Print every scheduler: what it knows, what it does, where it is from."""
    records = registry.components("sched")
    if choice.json:
        print(json.dumps([{"id": record.id, "features": sorted(record.features),
                           "summary": _summary(record), "reference": record.reference,
                           "options": [spec.name for spec in record.options]}
                          for record in records], indent=2))
        return 0
    table(("scheduler", "knows", "what it does", "options"),
          [(record.stem(), ", ".join(text for word, text in _KNOWS.items()
                                     if word in record.features) or "callbacks only",
            _summary(record), " ".join(spec.name for spec in record.options) or "none")
           for record in records])
    print("\nunikit list sched: what each option means; unikit sched simulate, unikit sched bench: "
          "how they differ")
    return 0


def _summary(record: type) -> str:
    return (inspect.getdoc(record) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")
