"""Turn ``benchmarks/results/*.json`` into tables: the performance page and the README's figures.

``python3 docs/ext/results.py`` rewrites the table between the two ``figures`` marks of README.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
MARKS = re.compile(r"(<!-- figures: begin -->\n).*?(<!-- figures: end -->)", re.DOTALL)
NONE = "None has been recorded in this tree; ``pytest benchmarks`` records them."


WORDS = {"c": "C program doing the same", "tap": "process polling a TAP",
         "tap_paced": "process polling a TAP", "python": "python3 -c pass", "nginx": "nginx"}
"""What the short names of references stand for."""


def results() -> list[dict[str, Any]]:
    """Return every recorded claim, by id; the tables that lie beside them are not claims."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [one for one in found if "must" in one]


def number(value: float) -> str:
    """Write a figure with three significant digits, whole numbers in full."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.3g}"


def bound(result: dict[str, Any]) -> str:
    """Write what had to be reached."""
    if result["compare"] == "ratio":
        return f"≤ {number(result['must'])} times that"
    return f"≤ {number(result['must'])} {result['unit']}"


def beside(result: dict[str, Any]) -> str:
    """Write what was measured in the same run, with the ratio."""
    if not result.get("reference"):
        return ""
    reference = result["reference"]
    name = WORDS.get(reference["name"], reference["name"])
    text = f"{name}: {number(reference['median'])} {result['unit']}"
    return text + (f" (ratio {result['ratio']:.2f})" if result.get("ratio") else "")


def ours(result: dict[str, Any]) -> str:
    """Write our median."""
    return f"{number(result['ours']['median'])} {result['unit']}"


def spread(sample: dict[str, Any]) -> str:
    """Write the 10th and 90th percentile, if there was more than one measurement."""
    if sample["n"] == 1:
        return "one value"
    return f"{number(sample['p10'])} ... {number(sample['p90'])}"


def source(claim: str) -> str:
    """Return the file that reproduces a claim, as far as its name tells."""
    words = claim.split("_")
    for count in range(len(words), 0, -1):
        name = f"benchmarks/bench_{'_'.join(words[:count])}.py"
        if (ROOT / name).exists():
            return name
    hits = [path for path in sorted((ROOT / "benchmarks").glob("bench_*.py"))
            if f'"{claim}"' in path.read_text()]
    return f"benchmarks/{hits[0].name}" if hits else "benchmarks"


def readme_table() -> str:
    """Return the README's table in Markdown."""
    found = results()
    if not found:
        return ""
    rows = ["| what | unikit | goal | in the same run |", "|---|---|---|---|"]
    for result in found:
        goal = bound(result) + ("" if result["met"] else " (missed)")
        rows.append(f"| {result['what']} | {ours(result)} | {goal} | {beside(result)} |")
    return "\n".join(rows) + "\n"


def rst() -> list[str]:
    """Return the performance page's generated part."""
    found = results()
    if not found:
        return [NONE]
    lines = ["", ".. list-table::", "   :header-rows: 1", "   :widths: 34 14 18 24 10", ""]
    head = ["what", "unikit, median", "goal", "in the same run", "reached"]
    rows = [[one["what"], ours(one), bound(one), beside(one), "yes" if one["met"] else "**no**"]
            for one in found]
    for row in [head, *rows]:
        lines += [f"   {'* -' if index == 0 else '  -'} {cell}" for index, cell in enumerate(row)]
    lines += ["", "One by one", "----------", ""]
    for result in found:
        lines += detail(result)
    return lines


def detail(result: dict[str, Any]) -> list[str]:
    """Return one claim with spread, peers, conditions and the file that reproduces it."""
    title = result["id"].replace("_", " ")
    lines = [title, "^" * len(title), "", result["what"] + ".", ""]
    samples = [result["ours"], *([result["reference"]] if result["reference"] else []),
               *result.get("more", [])]
    for sample in samples:
        name = WORDS.get(sample["name"], sample["name"])
        lines.append(f"* {name}: median {number(sample['median'])} {result['unit']}, "
                     f"10th to 90th percentile {spread(sample)}, n = {sample['n']}")
    lines += [f"* {name}: {text}; a constant, not measured in this run"
              for name, text in result["constants"].items()]
    lines += ["", f"Goal: {bound(result)}; {'reached' if result['met'] else '**missed**'}.", ""]
    if result["note"]:
        lines += [*result["note"].splitlines(), ""]
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    return [*lines, f"Reproduce: ``pytest {source(result['id'])}``. Recorded {result['date']} on: "
            f"{facts}.", ""]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive ``results``."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective
    from sphinx.util.nodes import nested_parse_with_titles

    class Results(SphinxDirective):
        """``.. results::``"""

        def run(self) -> list[nodes.Node]:
            """Parse the generated text in place."""
            self.env.note_reread()
            container = nodes.section()
            container.document = self.state.document
            nested_parse_with_titles(self.state, StringList(rst(), "results"), container)
            return container.children

    class LongRun(SphinxDirective):
        """``.. long-run::``"""

        def run(self) -> list[nodes.Node]:
            """Show docs/long-run.txt as it is."""
            path = ROOT / "docs/long-run.txt"
            self.env.note_dependency(str(path))
            text = path.read_text() if path.exists() else "None has been recorded in this tree."
            return [nodes.literal_block(text, text)]

    app.add_directive("results", Results)
    app.add_directive("long-run", LongRun)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Bring the README's table up to date."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    readme.write_text(MARKS.sub(lambda match: match[1] + readme_table() + match[2], text))


if __name__ == "__main__":
    main()
