"""The cache folder: yours alone, never half written, never growing for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from unikit import cache

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache of its own."""
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_made_where_it_was_asked_for(place: Path) -> None:
    """UNIKIT_CACHE decides."""
    assert cache.folder() == place
    assert place.is_dir()


def test_without_a_wish_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch,
                                                    tmp_path: Path) -> None:
    """XDG_CACHE_HOME, else the home folder."""
    monkeypatch.delenv("UNIKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "unikit"


def test_a_file_is_replaced_as_a_whole(place: Path) -> None:
    """The old text or the new one, nothing beside it."""
    path = cache.folder() / "note"
    cache.write(path, b"one")
    cache.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(place.iterdir()) == [path]


def test_the_older_half_goes_once_there_is_too_much(place: Path) -> None:
    """What is young stays, whatever the number; the rest of the cache is not touched."""
    folder = cache.folder() / "images"
    folder.mkdir()
    (place / "note").write_text("kept")
    for number in range(10):
        made = folder / f"{number}"
        made.mkdir()
        (made / "x.elf").write_text("x")
        age = time.time() - (10 - number) * 100000
        os.utime(made, (age, age))
    cache.prune("images", keep=10)
    assert len(list(folder.iterdir())) == 10
    cache.prune("images", keep=9, young=650000)
    assert {each.name for each in folder.iterdir()} == set("456789")
    cache.prune("images", keep=3)
    assert {each.name for each in folder.iterdir()} == set("789")
    cache.prune("nothing", keep=0)
    assert (place / "note").read_text() == "kept"
