"""Charts as SVG text: no dependency, colours by class so that a page can be light or dark.

A chart is a :class:`Chart`; put it into a page as it is, or into a file by :func:`standalone`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from unikit.alloc.lab import units

Form = Callable[[float | None], str]
_LETTER = 6.7  # pixels of an average letter at 12 pixels
_ROW, _BAR = 26, 14

STYLE = """
.chart { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.chart text { fill: var(--ink); stroke: var(--card); stroke-width: 3px; paint-order: stroke;
  stroke-linejoin: round; }
.chart .dim { fill: var(--dim); }
.chart .head { font-weight: 600; font-size: 13px; }
.chart .axis { stroke: var(--rule); stroke-width: 1; fill: none; }
.chart .mark { stroke: var(--dim); stroke-dasharray: 4 3; fill: none; }
.chart .whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.chart .base { fill: var(--base); } .chart .ours { fill: var(--ours); }
.chart .other { fill: var(--other); } .chart .lost { fill: var(--lost); }
.chart .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.chart .dashed { stroke-dasharray: 5 3; }
.chart .s0 { stroke: var(--ours); } .chart .s1 { stroke: var(--other); }
.chart .s2 { stroke: var(--third); } .chart .s3 { stroke: var(--lost); }
.chart .f0 { fill: var(--ours); } .chart .f1 { fill: var(--other); }
.chart .f2 { fill: var(--third); } .chart .f3 { fill: var(--lost); }
.chart .area { fill: var(--ours); fill-opacity: .14; stroke: none; }
"""
_LIGHT = ("--ink:#1c2430;--dim:#667085;--rule:#d7dce3;--paper:#ffffff;--card:#f7f8fa;"
          "--base:#8a94a6;--ours:#1f7a5c;--other:#3d6fd6;--third:#b7791f;--lost:#c2372e")
_DARK = ("--ink:#e6e9ee;--dim:#97a1b1;--rule:#39414d;--paper:#14181e;--card:#1b2129;"
         "--base:#7c8798;--ours:#4cc39a;--other:#7aa2f7;--third:#e0af68;--lost:#f2776d")
COLOURS = (f":root{{color-scheme:light dark;{_LIGHT}}}\n"
           f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of a known size.

    :ivar body: SVG elements.
    """

    title: str
    width: int
    height: int
    body: str

    def svg(self) -> str:
        """Return it as one element for an HTML page; the page brings the colours."""
        return (f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
                f'aria-label="{escape(self.title)}" style="max-width:{self.width}px">{self.body}'
                "</svg>")


class Bar(NamedTuple):
    """One bar: a value with the interval it lies in, and what to write behind it.

    :ivar value: ``None``: there is none; the text says why.
    :ivar style: ``base``, ``ours``, ``other`` or ``lost``.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    style: str = "other"


class Point(NamedTuple):
    """One point of a scatter chart."""

    label: str
    x: float
    y: float
    style: str = "other"


class Series(NamedTuple):
    """One line: its name and a value for each x; ``None`` leaves a gap."""

    label: str
    values: Sequence[float | None]


def _text(x: float, y: float, text: str, cls: str = "", anchor: str = "start") -> str:
    kind = f' class="{cls}"' if cls else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind} text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    return f'<path class="{cls}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _box(x: float, y: float, width: float, height: float, cls: str, tip: str = "",
         more: str = "") -> str:
    said = f"<title>{escape(tip)}</title>" if tip else ""
    return (f'<rect class="{cls}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
            f'height="{height:.1f}" rx="1.5"{more}>{said}</rect>')


def bars(title: str, rows: Sequence[Bar], form: Form = units.count, *, mark: float | None = None,
         width: int = 720, binary: bool = False) -> Chart:
    """Return horizontal bars from zero, with whiskers for intervals.

    :param form: writes values at the axis.
    :param mark: where to draw a line through all bars: the baseline.
    :param binary: values are bytes.
    """
    left = 12 + _LETTER * max((len(row.label) for row in rows), default=0)
    right = 16 + _LETTER * max((len(row.text) for row in rows if row.value is not None), default=0)
    most = max((row.high or row.value for row in rows if row.value is not None), default=1.0)
    scale = units.ticks(most, binary)
    room = max(width - left - right, 80)

    def x(value: float) -> float:
        return left + room * value / scale[-1]

    top, bottom = 30, 30 + _ROW * len(rows)
    body = [_text(0, 14, title, "head")]
    for value in scale:
        body.append(_line(x(value), top, x(value), bottom, "axis"))
        body.append(_text(x(value), bottom + 15, form(value), "dim", "middle"))
    for number, row in enumerate(rows):
        y = top + _ROW * number + _ROW / 2
        body.append(_text(left - 8, y + 4, row.label, "", "end"))
        if row.value is None:
            body.append(_text(left + 4, y + 4, row.text, "lost"))
            continue
        tip = f"{row.label}: {row.text or form(row.value)}"
        body.append(_box(left, y - _BAR / 2, x(row.value) - left, _BAR, row.style, tip))
        end = row.value
        if row.low is not None and row.high is not None and row.high > row.low:
            end = row.high
            body.append(f'<path class="whisker" d="M{x(row.low):.1f} {y:.1f}H{x(row.high):.1f}'
                        f'M{x(row.low):.1f} {y - 4:.1f}v8M{x(row.high):.1f} {y - 4:.1f}v8"/>')
        body.append(_text(max(x(end), x(row.value)) + 6, y + 4, row.text))
    if mark is not None:
        body.append(_line(x(mark), top - 4, x(mark), bottom + 2, "mark"))
    return Chart(title, width, bottom + 24, "".join(body))


def _margin(label: str) -> float:
    """Return the room that half a label needs to the right of the last place on an axis."""
    return max(18.0, 4 + _LETTER * len(label) / 2)


class _Plane:
    """Axes of a chart with two dimensions."""

    def __init__(self, title: str, width: int, height: int, xs: Sequence[float],
                 ys: Sequence[float], xform: Form, yform: Form, labels: tuple[str, str]) -> None:
        self.left = 20 + _LETTER * max(len(yform(value)) for value in ys)
        self.top, self.right, self.bottom = 48.0, width - _margin(xform(xs[-1])), height - 40.0
        self._x, self._y = (xs[0], xs[-1]), (ys[0], ys[-1])
        self.body = [_text(0, 14, title, "head"), _text(0, 34, labels[1], "dim"),
                     _text(self.right, height - 4, labels[0], "dim", "end")]
        for value in ys:
            self.body.append(_line(self.left, self.y(value), self.right, self.y(value), "axis"))
            self.body.append(_text(self.left - 8, self.y(value) + 4, yform(value), "dim", "end"))
        for value in xs:
            self.body.append(_text(self.x(value), self.bottom + 16, xform(value), "dim", "middle"))

    def x(self, value: float) -> float:
        span = (self._x[1] - self._x[0]) or 1
        return self.left + (self.right - self.left) * (value - self._x[0]) / span

    def y(self, value: float) -> float:
        span = (self._y[1] - self._y[0]) or 1
        return self.bottom - (self.bottom - self.top) * (value - self._y[0]) / span


def scatter(title: str, points: Sequence[Point], xform: Form, yform: Form,
            labels: tuple[str, str], *, mark: tuple[float, float] | None = None,
            width: int = 720, height: int = 380) -> Chart:
    """Return points with their names; the axes show where they are.

    :param labels: of x and y.
    :param mark: lines through this point: the baseline.
    """
    xs = units.span([point.x for point in points])
    ys = units.span([point.y for point in points])
    plane = _Plane(title, width, height, xs, ys, xform, yform, labels)
    body = plane.body
    if mark is not None:
        body.append(_line(plane.x(mark[0]), plane.top, plane.x(mark[0]), plane.bottom, "mark"))
        body.append(_line(plane.left, plane.y(mark[1]), plane.right, plane.y(mark[1]), "mark"))
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda each: (each.y, each.x)):
        x, y = plane.x(point.x), plane.y(point.y)
        tip = f"{point.label}: {xform(point.x)}, {yform(point.y)}"
        body.append(f'<circle class="{point.style}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
                    f"<title>{escape(tip)}</title></circle>")
        wide = _LETTER * len(point.label)
        left = x + wide + 12 > plane.right
        at, low = (x - wide - 9 if left else x + 9), y + 4
        while any(abs(low - other) < 12 and at < end and begin < at + wide
                  for begin, end, other in taken):
            low -= 12
        taken.append((at, at + wide, low))
        body.append(_text(at, low, point.label))
    return Chart(title, width, height, "".join(body))


def lines(title: str, xs: Sequence[float], series: Sequence[Series], xform: Form, yform: Form,
          labels: tuple[str, str], *, binary: bool = False, filled: bool = True,
          width: int = 720, height: int = 300) -> Chart:
    """Return lines over a common x, from the fifth on dashed.

    :param xs: ascending.
    :param binary: y is bytes.
    :param filled: whether the first one has an area below it; x then begins at 0.
    """
    known = [value for each in series for value in each.values if value is not None]
    last = xs[-1] if xs else 1
    least = 0 if filled or not xs else xs[0]
    plane = _Plane(title, width, height, [least + (last - least) * part / 4 for part in range(5)],
                   units.ticks(max(known, default=1), binary), xform, yform, labels)
    body = plane.body
    for number, each in enumerate(series):
        runs: list[list[str]] = [[]]
        for x, value in zip(xs, each.values, strict=True):
            if value is None:
                runs.append([])
            else:
                runs[-1].append(f"{plane.x(x):.1f} {plane.y(value):.1f}")
        for run in (run for run in runs if run):
            if number == 0 and filled:
                begin, end = run[0].split()[0], run[-1].split()[0]
                body.append(f'<path class="area" d="M{begin} {plane.bottom:.1f}L{"L".join(run)}'
                            f'L{end} {plane.bottom:.1f}Z"/>')
            body.append(f'<path class="line s{number % 4}{_dashed(number)}" d="M{"L".join(run)}"/>')
    body += _legend([each.label for each in series], width)
    return Chart(title, width, height, "".join(body))


def _legend(names: Sequence[str], width: int) -> list[str]:
    if len(names) < 2:
        return []
    body, x = [], float(width - 18)
    for number in reversed(range(len(names))):
        x -= _LETTER * len(names[number])
        body.append(_text(x, 34, names[number]))
        x -= 14
        if number < 4:
            body.append(f'<rect class="f{number % 4}" x="{x:.1f}" y="25" width="9" height="9"/>')
        else:
            body.append(f'<path class="line s{number % 4} dashed" d="M{x - 4:.1f} 30h13"/>')
        x -= 14
    return body


def _dashed(number: int) -> str:
    return " dashed" if number >= 4 else ""


def columns(title: str, names: Sequence[str], values: Sequence[float], form: Form,
            labels: tuple[str, str], *, style: str = "other", width: int = 720, height: int = 260,
            binary: bool = False) -> Chart:
    """Return upright columns, as for a histogram; of many names, some are written."""
    plane = _Plane(title, width, height, [0, max(len(names), 1)],
                   units.ticks(max(values, default=1), binary), lambda value: "", form, labels)
    body = plane.body
    step = (plane.right - plane.left) / max(len(names), 1)
    often = max(1, math.ceil(max((len(name) for name in names), default=1) * _LETTER * 1.15 / step))
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x = plane.left + step * number
        if value:
            body.append(_box(x + step * 0.08, plane.y(value), step * 0.84,
                             plane.bottom - plane.y(value), style, f"{name}: {form(value)}"))
        if number % often == 0:
            body.append(_text(x + step / 2, plane.bottom + 16, name, "dim", "middle"))
    return Chart(title, width, height, "".join(body))


def heat(title: str, across: Sequence[str], down: Sequence[str], cells: Sequence[Sequence[float]],
         form: Form, labels: tuple[str, str], *, width: int = 720) -> Chart:
    """Return a table of squares, darker for more; the scale is logarithmic.

    :param cells: one row per entry of ``down``, each with one value per entry of ``across``.
    """
    left, top, step = 20 + _LETTER * max((len(name) for name in down), default=1), 48, 18
    most = max((value for row in cells for value in row), default=0)
    wide = (width - left - 18) / max(len(across), 1)
    often = max(1, math.ceil(max((len(name) for name in across), default=1) * _LETTER / wide))
    bottom = top + step * len(down)
    body = [_text(0, 14, title, "head"), _text(0, 34, labels[1], "dim"),
            _text(width - 18, bottom + 34, labels[0], "dim", "end")]
    for number, (name, row) in enumerate(zip(down, cells, strict=True)):
        y = top + step * number
        body.append(_text(left - 8, y + 13, name, "dim", "end"))
        for at, value in enumerate(row):
            if value > 0:
                deep = 0.12 + 0.88 * math.log1p(value) / math.log1p(most)
                body.append(_box(left + wide * at + 0.5, y + 0.5, wide - 1, step - 1, "ours",
                                 f"{across[at]}, {name}: {form(value)}",
                                 f' fill-opacity="{deep:.2f}"'))
    body += [_text(left + wide * (at + 0.5), bottom + 16, name, "dim", "middle")
             for at, name in enumerate(across) if at % often == 0]
    return Chart(title, width, int(bottom + 40), "".join(body))


def standalone(charts: Sequence[Chart], title: str = "") -> str:
    """Return charts one below the other as an SVG file; light or dark as its reader prefers."""
    width = max(chart.width for chart in charts) + 32
    y, parts = (44 if title else 16), []
    if title:
        parts.append(f'<text x="16" y="26" style="font-weight:600;font-size:15px">{escape(title)}'
                     "</text>")
    for chart in charts:
        parts.append(f'<g transform="translate(16 {y})">{chart.body}</g>')
        y += chart.height + 16
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{width}" height="{y}" '
            f'viewBox="0 0 {width} {y}"><style>{COLOURS.replace(":root", "svg")}{STYLE}'
            "svg{background:var(--card)}</style>" + "\n".join(parts) + "</svg>\n")
