"""``unikit alloc show``: a trace in words, as a picture and as a page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from unikit.alloc.lab import portrait
from unikit.alloc.lab.replayer import Result, replay
from unikit.alloc.lab.trace import Trace
from unikit.cli.alloc import references, table
from unikit.cli.alloc.compare import check_outputs
from unikit.cli.output import progress
from unikit.errors import InvalidArgument

_SHOWN = 12
_USUAL = ("shard", "tlsf")


def do_show(choice: argparse.Namespace) -> int:
    """Print what a trace holds; draw it, write its page."""
    check_outputs(choice)
    trace = Trace.load(choice.trace)
    replays = {}
    for name in (word for each in choice.allocator for word in each.split(",") if word):
        replays[name] = _replayed(trace, name)
    found = portrait.portrait(trace, replays)
    if choice.json:
        print(json.dumps(_json(found), indent=2))
    else:
        _print(found)
    if choice.picture:
        portrait.draw(found, Path(choice.picture))
        sys.stderr.write(f"unikit: wrote {choice.picture}\n")
    if choice.report:
        if not replays:  # the page shows what fragmentation looks like
            found = portrait.portrait(trace, {name: _replayed(trace, name) for name in _USUAL})
        portrait.page(found).write(Path(choice.report))
        sys.stderr.write(f"unikit: wrote {choice.report}\n")
    return 0


def _replayed(trace: Trace, name: str) -> Result:
    candidate = references.component(name)
    if candidate is None:
        raise InvalidArgument(f"--allocator {name}: only components can be looked into; unikit "
                              "alloc compare replays on others too")
    with progress(f"replaying on {name}"):
        return replay(trace, candidate, rounds=1, latency_rounds=0, touch="all")


def _print(found: portrait.Portrait) -> None:
    print(portrait.title(found))
    print()
    table.styled(("", ""), [[(key, "dim"), (text, "")] for key, text in portrait.figures(found)],
                 left=2)
    print()
    rows = portrait.site_rows(found.shape.sites[:_SHOWN])
    table.styled(portrait.SITE_HEADERS, rows)
    if len(found.shape.sites) > _SHOWN:
        print(f"... and {len(found.shape.sites) - _SHOWN} more call sites")
    if found.replays:
        print()
        table.styled(("replayed on", "peak requested", "peak given out", "peak backed",
                      "backed / requested", "at the end"),
                     [portrait.waste_row(*each) for each in found.replays.items()])


def _json(found: portrait.Portrait) -> dict[str, object]:
    look = found.shape
    return {"format": "unikit alloc show", "version": 1, "facts": found.trace.facts,
            "summary": dataclasses.asdict(found.summary),
            "moments": [each._asdict() for each in look.moments],
            "sizes": [each._asdict() for each in look.sizes],
            "lives": list(look.lives), "survivors": list(look.survivors),
            "sites": [{**use._asdict(), "site": {"name": use.site.name, "place": use.site.place,
                                                 "module": use.site.module}}
                      for use in look.sites],
            "replays": {name: dataclasses.asdict(result)
                        for name, result in found.replays.items()}}
