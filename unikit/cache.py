"""Where things are kept that can be made again: objects, images, the scan for components."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from unikit.errors import PlatformError


def folder() -> Path:
    """Return the cache folder, created: ``$UNIKIT_CACHE``, else ``unikit`` in the user's cache.

    Where that cannot be written, a folder of the user's own in the system's temporary one.

    :raises PlatformError: that one belongs to somebody else.
    """
    given = os.environ.get("UNIKIT_CACHE")
    path = Path(given) if given else Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unikit"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    import tempfile
    path = Path(tempfile.gettempdir()) / f"unikit-cache-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PlatformError(f"{path} belongs to somebody else; set UNIKIT_CACHE to a folder of "
                            "your own")
    return path


def write(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    import threading
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.write_bytes(data)
    fresh.replace(path)


def prune(name: str, keep: int, young: float = 86400.0) -> None:
    """Remove the older half of a subfolder once it has more than ``keep`` entries.

    What was made less than ``young`` seconds ago stays: somebody may be using it. Whatever cannot
    be removed stays as well; all of it can be made again.
    """
    import shutil
    import time
    with contextlib.suppress(OSError):
        found = sorted(((each.stat().st_mtime, each) for each in (folder() / name).iterdir()),
                       key=lambda pair: pair[0])
        if len(found) <= keep:
            return
        limit = time.time() - young
        for made, path in found[:len(found) // 2]:
            if made < limit:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
