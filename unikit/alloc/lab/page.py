"""HTML pages that stand alone: one file, no request to anywhere, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from unikit.alloc.lab.charts import COLOURS, STYLE, Chart

_STYLE = """
body{margin:0;background:var(--paper);color:var(--ink);
 font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:25px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 10px}
p.sub{color:var(--dim);margin:0 0 18px}p.lead{font-size:17px;margin:14px 0 22px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;
 margin:0 0 14px;overflow-x:auto}.card svg{display:block;width:100%;height:auto}
.pair{margin:0 0 14px;display:grid;gap:14px;
 grid-template-columns:repeat(auto-fit,minmax(430px,1fr))}
.pair .card{margin:0}
@media(max-width:500px){.pair{grid-template-columns:1fr}}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:right;color:var(--dim);font-weight:600;border-bottom:2px solid var(--rule);
 padding:5px 9px;white-space:nowrap;vertical-align:bottom}
td{text-align:right;border-bottom:1px solid var(--rule);padding:5px 9px;white-space:nowrap}
th.l,td.l{text-align:left}td.w{white-space:normal;min-width:12em}
tr:last-child td{border-bottom:0}
td.good{color:var(--ours);font-weight:600}td.bad{color:var(--lost);font-weight:600}
td.dim{color:var(--dim)}td code{font-size:12.5px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:0;font-size:13.5px}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 14px;
 overflow-x:auto;font-size:13px}
.key span{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin:0 .35em 0 1em}
footer{color:var(--dim);font-size:12.5px;margin-top:40px}
"""


class Page:
    """A page under construction; every method adds a block at its end."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]
        if subtitle:
            self._parts.append(f'<p class="sub">{escape(subtitle)}</p>')

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, kind: str = "") -> None:
        """Add a paragraph; ``kind``: ``lead`` or ``sub``."""
        cls = f' class="{kind}"' if kind else ""
        self._parts.append(f"<p{cls}>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add lines as they are."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def chart(self, *charts: Chart) -> None:
        """Add a chart, or several side by side where there is room."""
        cards = "".join(f'<div class="card">{chart.svg()}</div>' for chart in charts)
        self._parts.append(f'<div class="pair">{cards}</div>' if len(charts) > 1 else cards)

    def key(self, entries: Iterable[tuple[str, str]]) -> None:
        """Add what the colours mean: pairs of a style of charts and a text."""
        said = "".join(f'<span style="background:var(--{style})"></span>{escape(text)}'
                       for style, text in entries)
        self._parts.append(f'<p class="sub key">{said}</p>')

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[tuple[str, str]]],
              left: int = 1) -> None:
        """Add a table.

        :param rows: cells of text and class: ``good``, ``bad``, ``dim``, ``w`` (may wrap) or none.
        :param left: so many columns are aligned to the left; wrapping ones are too.
        """
        def cls(at: int, kind: str = "") -> str:
            words = [word for word in (kind, "l" if at < left or kind == "w" else "") if word]
            return f' class="{" ".join(words)}"' if words else ""
        head = "".join(f"<th{cls(at)}>{escape(text)}</th>" for at, text in enumerate(headers))
        body = "".join("<tr>" + "".join(f"<td{cls(at, kind)}>{escape(text)}</td>"
                                        for at, (text, kind) in enumerate(row)) + "</tr>\n"
                       for row in rows)
        self._parts.append(f'<div class="card"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
                           f"{body}</tbody></table></div>")

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Add pairs of a name and a text."""
        rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts)
        self._parts.append(f'<div class="card"><dl>{rows}</dl></div>')

    def html(self) -> str:
        """Return the whole page."""
        from unikit import __version__
        body = "\n".join(self._parts)
        return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
                '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
                f"<title>{escape(self._title)}</title>\n<style>\n{COLOURS}{_STYLE}{STYLE}</style>\n"
                f"</head><body><main>\n{body}\n<footer>unikit {escape(__version__)}</footer>\n"
                "</main></body></html>\n")

    def write(self, path: Path) -> None:
        """Write the page to a file, all of it or nothing."""
        from unikit import cache
        cache.write(path, self.html().encode())
