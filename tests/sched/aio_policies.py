"""The schedulers that tests of asyncio run on."""

import pytest

from unikit.sched import Coop, Edf, Fair, Loop, Prio

POLICIES = [Loop, Coop, Fair, Prio, Edf]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda kind: kind.__name__)
