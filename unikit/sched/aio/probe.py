"""A look at asyncio's own tasks, for what the C side has to know of them and no call tells."""

from __future__ import annotations

import _asyncio
from collections.abc import Callable
from typing import Any


class _Loop:
    """As much of a loop as a task needs that never waits."""

    step: Callable[[], object]

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Callable[[], object], *args: Any, context: Any) -> None:
        self.step = callback


async def _raise(error: BaseException) -> None:
    raise error


def ended_by(error: BaseException) -> Any:
    """Make a task of asyncio's that has ended by an exception."""
    loop = _Loop()
    task: Any = _asyncio.Task(_raise(error), loop=loop)  # type: ignore[arg-type]
    loop.step()
    return task
