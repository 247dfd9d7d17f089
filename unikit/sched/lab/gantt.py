"""A schedule as a picture: SVG by itself, PNG by matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unikit.errors import InvalidArgument, NotSupported

if TYPE_CHECKING:
    from unikit.sched.lab.simulation import Job, Schedule
    from unikit.sched.lab.taskset import SimTask

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Distinct also for people who see few colours (P. Tol, «Colour schemes», SRON/EPS/TN/09-002)."""
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns"))
_LATE = "#cc3311"
_WIDE, _ROW, _TOP, _BOTTOM, _LETTER = 960, 44, 34, 46, 6.7


class _View(NamedTuple):
    """What of a schedule is drawn.

    :ivar scale: ns per unit of the axis.
    """

    start: int
    end: int
    scale: int
    unit: str

    def bars(self, schedule: Schedule, task: int) -> Iterator[tuple[int, int, int]]:
        """Yield (start, end, job) of a task's runs, cut to what is seen."""
        for each in schedule.segments:
            if each.task == task and each.end > self.start and each.start < self.end:
                yield max(each.start, self.start), min(each.end, self.end), each.job

    def releases(self, schedule: Schedule) -> list[Job]:
        """Return the jobs whose release is seen."""
        return [job for job in schedule.jobs if self.start <= job.release <= self.end]

    def deadlines(self, schedule: Schedule) -> list[tuple[Job, int, bool]]:
        """Return the jobs whose deadline is seen, it, and whether it was missed."""
        return [(job, job.deadline, (schedule.until if job.finish is None else job.finish)
                 > job.deadline)
                for job in schedule.jobs
                if job.deadline is not None and self.start <= job.deadline <= self.end]


def check(path: Path) -> None:
    """Say before any work whether a picture can be written there.

    :raises InvalidArgument: it is neither .svg nor .png, or there is no such folder.
    :raises NotSupported: it is .png, and matplotlib is not installed.
    """
    if path.suffix not in (".svg", ".png"):
        raise InvalidArgument(f"drawing into {path}: name a .svg or .png file")
    if not path.parent.is_dir():
        raise InvalidArgument(f"drawing into {path}: there is no folder {path.parent}")
    if path.suffix == ".png":
        _matplotlib(path)


def _matplotlib(path: Path) -> tuple[Any, Any]:
    """Return matplotlib's figure and canvas classes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotSupported(f"drawing into {path}: .png needs matplotlib (pip install "
                           "matplotlib); .svg needs nothing") from error
    return Figure, FigureCanvasAgg


def draw(schedule: Schedule, path: Path, start: int, end: int) -> Path:
    """Draw a schedule between two times, ns; see :meth:`Schedule.gantt`."""
    check(path)
    if not 0 <= start < end:
        raise InvalidArgument(f"drawing from {start} to {end} ns: the end comes after the start")
    if schedule.jobs and not schedule.segments:
        raise InvalidArgument("drawing a schedule whose segments were not kept; give keep")
    view = _View(start, end, *next(each for each in _UNITS
                                   if end - start >= 10 * each[0] or each[0] == 1))
    if path.suffix == ".svg":
        path.write_text(svg(schedule, view))
    else:
        _png(schedule, view, path)
    return path


def _title(schedule: Schedule) -> str:
    return f"{schedule.policy}: {schedule.missed} deadlines missed, {schedule.switches} switches"


# ---- SVG ----------------------------------------------------------------------------------------


def svg(schedule: Schedule, view: _View) -> str:
    """Return the picture as text: a bar per run, an arrow per release, a tick per deadline, a cross
    where one was missed."""
    left = 16 + _LETTER * max((len(task.name) for task in schedule.tasks), default=0)
    height = _TOP + _ROW * len(schedule.tasks) + _BOTTOM

    def x(time: int) -> float:
        return left + (_WIDE - left - 20) * (time - view.start) / (view.end - view.start)

    body = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {height}" '
            f'width="{_WIDE}" height="{height}" font-family="system-ui, sans-serif" '
            f'font-size="12"><title>{escape(_title(schedule))}</title>',
            f'<rect width="{_WIDE}" height="{height}" fill="#fff"/>',
            f'<text x="{left:.1f}" y="16" font-weight="600">{escape(_title(schedule))}</text>',
            *_axis(view, x, height)]
    for number, task in enumerate(schedule.tasks):
        body += _row(schedule, view, number, task, x, left)
    return "\n".join([*body, *_marks(schedule, view, x), "</svg>", ""])


def _axis(view: _View, x: Any, height: int) -> list[str]:
    floor, lines = height - _BOTTOM, []
    for time in _ticks(view):
        lines.append(f'<path d="M{x(time):.1f} {_TOP}V{floor}" stroke="#ddd"/>')
        lines.append(f'<text x="{x(time):.1f}" y="{floor + 16}" text-anchor="middle" '
                     f'fill="#666">{time / view.scale:g}</text>')
    lines.append(f'<text x="{_WIDE - 20}" y="{height - 8}" text-anchor="end" fill="#666">'
                 f"time [{view.unit}]</text>")
    return lines


def _ticks(view: _View) -> list[int]:
    """Return about ten round times."""
    power = 10 ** (len(str((view.end - view.start) // 12)) - 1)
    step = next(part * power for part in (1, 2, 5, 10)
                if (view.end - view.start) / (part * power) <= 12)
    return list(range(-(-view.start // step) * step, view.end + 1, step))


def _row(schedule: Schedule, view: _View, number: int, task: SimTask, x: Any, left: float
         ) -> list[str]:
    y, colour = _TOP + _ROW * number + 12, _COLOURS[number % len(_COLOURS)]
    lines = [f'<text x="{left - 8:.1f}" y="{y + 15}" text-anchor="end">{escape(task.name)}</text>']
    for start, end, job in view.bars(schedule, number):
        lines.append(f'<rect x="{x(start):.2f}" y="{y}" width="{max(x(end) - x(start), 0.2):.2f}" '
                     f'height="22" fill="{colour}"><title>{escape(task.name)}, job {job}: '
                     f"{start / view.scale:g} to {end / view.scale:g} {view.unit}</title></rect>")
    return lines


def _marks(schedule: Schedule, view: _View, x: Any) -> list[str]:
    lines = []
    for job in view.releases(schedule):
        y = _TOP + _ROW * job.task + 3
        lines.append(f'<path d="M{x(job.release):.1f} {y}l-3.5 6h7z" fill="#000"/>')
    for job, deadline, late in view.deadlines(schedule):
        at, y = x(deadline), _TOP + _ROW * job.task + 34
        lines.append(f'<path d="M{at:.1f} {y}v7" stroke="#000"/>')
        if late:
            lines.append(f'<path d="M{at - 4:.1f} {y - 15}l8 8m0 -8l-8 8" stroke="{_LATE}" '
                         'stroke-width="2"/>')
    return lines


# ---- PNG ----------------------------------------------------------------------------------------


def _png(schedule: Schedule, view: _View, path: Path) -> None:
    new_figure, canvas = _matplotlib(path)
    rows, scale = len(schedule.tasks), view.scale
    figure = new_figure(figsize=(10, 1.2 + 0.5 * rows), layout="constrained")
    canvas(figure)
    axes = figure.subplots()
    for number in range(rows):
        axes.broken_barh([(start / scale, (end - start) / scale)
                          for start, end, _ in view.bars(schedule, number)], (number - 0.3, 0.6),
                         facecolors=_COLOURS[number % len(_COLOURS)], edgecolor="none")
    jobs, timed = view.releases(schedule), view.deadlines(schedule)
    axes.plot([job.release / scale for job in jobs], [job.task - 0.38 for job in jobs],
              linestyle="none", marker="^", markersize=4, color="black", clip_on=False)
    axes.plot([deadline / scale for _, deadline, _ in timed],
              [job.task + 0.36 for job, _, _ in timed],
              linestyle="none", marker="|", markersize=6, color="black", clip_on=False)
    axes.plot([deadline / scale for _, deadline, late in timed if late],
              [job.task for job, _, late in timed if late],
              linestyle="none", marker="x", markersize=7, color=_LATE, markeredgewidth=2)
    axes.set_yticks(range(rows), [task.name for task in schedule.tasks])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(view.start / scale, view.end / scale)
    axes.set_xlabel(f"time [{view.unit}]")
    axes.set_title(_title(schedule), loc="left", fontsize="medium")
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)
