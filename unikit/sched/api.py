"""Schedulers from Python: the base of their records, and tasks in this process."""

from __future__ import annotations

from unikit.component import Component


class Scheduler(Component):
    """Base of scheduler records."""
