"""Run CPython's own tests of asyncio with unikit's loop in the place of the selector loop.

``python aio_cpython.py MODULE ...``: names in ``test.test_asyncio``.
"""

import asyncio
import sys
import unittest

from unikit.aio import EventLoop


class Instead(EventLoop):
    """Takes the selector that tests pass, and uses epoll."""

    def __init__(self, selector=None, **more):
        super().__init__(**more)
        if selector is not None:
            selector.close()


class Policy(asyncio.DefaultEventLoopPolicy):
    """What asyncio.run and IsolatedAsyncioTestCase ask."""

    _loop_factory = Instead


def main(names):
    """Print what failed, one name a line."""
    asyncio.SelectorEventLoop = Instead
    asyncio.set_event_loop_policy(Policy())
    asyncio.DefaultEventLoopPolicy = Policy
    suite = unittest.TestSuite()
    for name in names:
        suite.addTests(unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{name}"))
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    for test, _ in result.failures + result.errors:
        print("FAILED", test.id().removeprefix("test.test_asyncio."))
    print("RAN", result.testsRun, "SKIPPED", len(result.skipped))


if __name__ == "__main__":
    main(sys.argv[1:])
