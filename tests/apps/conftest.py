"""Applications over the fake: one program per application and session, one process per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from fake_app import Fake, build


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds an application once."""
    folder = tmp_path_factory.mktemp("apps")
    return cache(lambda name: build(name, folder))


@pytest.fixture
def http(program: Callable[[str], Path]) -> Iterator[Fake]:
    """Run the web server; connection 0 is open."""
    fake = Fake(program("http"))
    fake.connect()
    yield fake
    fake.close()


@pytest.fixture
def echo(program: Callable[[str], Path]) -> Iterator[Fake]:
    """Run the echo server; connection 0 is open."""
    fake = Fake(program("echo"))
    fake.connect()
    yield fake
    fake.close()
