"""An example policy: stride scheduling. Who has run the least for its weight goes next."""

import heapq
import itertools

from unikit.sched import Policy, PolicyTask


class Shortest(Policy):
    """Divides the processor by weight: run time counts inversely to the weight."""

    preemptive = True

    def __init__(self, slice_ns: int = 1_000_000) -> None:
        self.slice_ns = slice_ns
        self.heap: list[tuple[float, int, PolicyTask]] = []
        self.order = itertools.count()  # of arrival, among those who have run equally long
        self.now = 0.0  # what the task that runs had run

    def ready(self, task: PolicyTask, reason: str) -> None:
        if reason != "yielded":
            task.ran = max(getattr(task, "ran", 0.0), self.now)  # sleeping earns nothing
        heapq.heappush(self.heap, (task.ran, next(self.order), task))

    def next(self) -> PolicyTask:
        self.now, _, task = heapq.heappop(self.heap)
        return task

    def stopped(self, task: PolicyTask, ran_ns: int) -> None:
        task.ran += ran_ns * 1024 / (task.share.weight or 1024)

    def stop_ns(self, task: PolicyTask) -> int:
        return self.now_ns + self.slice_ns
