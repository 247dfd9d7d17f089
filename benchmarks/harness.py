"""What every claim needs: interleaved rounds, medians, machine facts, a result file.

A claim is one file ``bench_*.py`` here; it measures the reference in the same run, alternating with
ours, and ends with :func:`record`, which writes ``results/<id>.json``. The performance page of the
docs is made from those files. Run one with ``pytest benchmarks/bench_boot.py``.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one thing, in the claim's unit."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)

    def spread(self) -> tuple[float, float]:
        """Return the 10th and 90th percentile."""
        ordered = sorted(self.values)
        last = len(ordered) - 1
        return ordered[round(last * 0.1)], ordered[round(last * 0.9)]

    def facts(self) -> dict[str, Any]:
        """Return the sample as it stands in a result file."""
        low, high = self.spread()
        return {"name": self.name, "median": self.median, "p10": low, "p90": high,
                "min": min(self.values), "max": max(self.values), "n": len(self.values)}


def interleave(rounds: int, warmup: int, **contestants: Callable[[], float]) -> dict[str, Sample]:
    """Call each contestant in turn, round by round, so that drift hits all alike.

    :param rounds: counted rounds.
    :param warmup: rounds before them that are not counted.
    :param contestants: name to a function that measures once and returns the value.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name, measure in contestants.items():
            value = measure()
            if number >= warmup:
                values[name].append(value)
    return {name: Sample(name, tuple(found)) for name, found in values.items()}


def paired_ratio(ours: Sample, reference: Sample) -> float:
    """Return the median of the ratios of the rounds: what a noisy machine leaves intact."""
    return statistics.median(one / two for one, two in
                             zip(ours.values, reference.values, strict=True))


def machine() -> dict[str, str]:
    """Return what a reader must know of the machine."""
    model = next((line.partition(":")[2].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
                 "unknown")
    virtual = Path("/sys/module")
    kvm = next((name for name in ("kvm_amd", "kvm_intel", "kvm_pvm") if (virtual / name).exists()),
               "none")
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {"cpu": model, "cpus": str(os.cpu_count()), "kernel": platform.release(), "kvm": kvm,
            "governor": governor.read_text().strip() if governor.exists() else "not exposed",
            "compiler": _first_line("gcc", "--version"), "python": platform.python_version(),
            "commit": _first_line("git", "rev-parse", "--short", "HEAD")}


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              cwd=Path(__file__).parent)
    except FileNotFoundError:
        return "not found"
    return (done.stdout.splitlines() or ["unknown"])[0]


def record(claim: str, what: str, unit: str, ours: Sample, *, must: float,
           reference: Sample | None = None, ratio: float | None = None, compare: str = "value",
           constants: Mapping[str, str] | None = None, note: str = "",
           more: Sequence[Sample] = ()) -> bool:
    """Write the result file of a claim and return whether it is met.

    :param claim: name of the file.
    :param what: what was measured, in words.
    :param unit: of all values.
    :param must: the bound, at most; in ``unit``, or as a ratio with ``compare="ratio"``.
    :param reference: measured in the same run.
    :param ratio: ours to reference; default: of the medians.
    :param constants: figures of peers that cannot be installed, with their date.
    :param note: how it was measured, what would get there.
    """
    if ratio is None and reference is not None:
        ratio = ours.median / reference.median
    value = ratio if compare == "ratio" else ours.median
    assert value is not None
    result = {"id": claim, "what": what, "unit": unit, "ours": ours.facts(), "must": must,
              "compare": compare, "met": value <= must,
              "reference": reference.facts() if reference else None, "ratio": ratio,
              "more": [sample.facts() for sample in more], "constants": dict(constants or {}),
              "note": note, "date": datetime.date.today().isoformat(), "machine": machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{claim}.json").write_text(json.dumps(result, indent=2) + "\n")
    return value <= must
