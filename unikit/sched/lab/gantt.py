"""A schedule as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit.errors import InvalidArgument, NotSupported

if TYPE_CHECKING:
    from unikit.sched.lab.simulation import Schedule

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Distinct also for people who see few colours (P. Tol, «Colour schemes», SRON/EPS/TN/09-002)."""
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns"))


def draw(schedule: Schedule, path: Path, start: int, end: int) -> Path:
    """Draw a schedule between two times, ns; see :meth:`Schedule.gantt`."""
    if path.suffix not in (".svg", ".png"):
        raise InvalidArgument(f"drawing into {path}: name a .svg or .png file")
    if not 0 <= start < end:
        raise InvalidArgument(f"drawing from {start} to {end} ns: the end comes after the start")
    if schedule.jobs and not schedule.segments:
        raise InvalidArgument("drawing a schedule whose segments were not kept; give keep")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotSupported("pictures need matplotlib: pip install 'unikit-os[plot]'") from error
    scale, unit = next(each for each in _UNITS if end - start >= 10 * each[0] or each[0] == 1)
    rows = len(schedule.tasks)
    figure = Figure(figsize=(10, 1.2 + 0.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _bars(axes, schedule, start, end, scale)
    _marks(axes, schedule, start, end, scale)
    axes.set_yticks(range(rows), [task.name for task in schedule.tasks])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(start / scale, end / scale)
    axes.set_xlabel(f"time [{unit}]")
    axes.set_title(f"{schedule.policy}: {schedule.missed} deadlines missed, "
                   f"{schedule.switches} switches", loc="left", fontsize="medium")
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {}, dpi=120)
    return path


def _bars(axes: Any, schedule: Schedule, start: int, end: int, scale: int) -> None:
    for number in range(len(schedule.tasks)):
        spans = [(max(each.start, start) / scale,
                  (min(each.end, end) - max(each.start, start)) / scale)
                 for each in schedule.segments
                 if each.task == number and each.end > start and each.start < end]
        axes.broken_barh(spans, (number - 0.3, 0.6), facecolors=_COLOURS[number % len(_COLOURS)],
                         edgecolor="none")


def _marks(axes: Any, schedule: Schedule, start: int, end: int, scale: int) -> None:
    """Draw an arrow up at each release, a tick at each deadline, a cross where one was missed."""
    jobs = [job for job in schedule.jobs if start <= job.release <= end]
    axes.plot([job.release / scale for job in jobs], [job.task - 0.38 for job in jobs],
              linestyle="none", marker="^", markersize=4, color="black", clip_on=False)
    timed = [job for job in schedule.jobs if job.deadline is not None
             and start <= job.deadline <= end]
    axes.plot([(job.deadline or 0) / scale for job in timed], [job.task + 0.36 for job in timed],
              linestyle="none", marker="|", markersize=6, color="black", clip_on=False)
    late = [job for job in timed if job.finish is None or job.finish > (job.deadline or 0)]
    axes.plot([(job.deadline or 0) / scale for job in late], [job.task for job in late],
              linestyle="none", marker="x", markersize=7, color="#cc3311", markeredgewidth=2)
