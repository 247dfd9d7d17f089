"""The cache folder: yours alone, never half written, never growing for ever."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unikit import cache
from unikit.errors import PlatformError

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


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the system's temporary folder be one of the test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    return folder


def test_a_cache_that_cannot_be_made_gives_way_to_a_private_temporary_one(
        tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service user has no home: building works all the same, and nobody else may look in."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "file" / "cache"))
    path = cache.folder()
    assert path == temporary / f"unikit-cache-{os.getuid()}"
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_written_gives_way_too(
        tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may exist and belong to root."""
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "there"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache.folder().parent == temporary


def test_a_temporary_cache_of_somebody_else_is_not_used(
        tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others could have planted there would be linked into images."""
    uid = os.getuid() + 1
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path / "there"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(PlatformError, match="belongs to somebody else; set UNIKIT_CACHE"):
        cache.folder()


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """The compile jobs of one process all keep what the compiler said about itself."""
    target = tmp_path / "note"
    texts = [str(number).encode() * 5000 for number in range(10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: cache.write(target, text), texts * 40))
    assert target.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [target]
