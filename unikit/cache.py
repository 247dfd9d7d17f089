"""Where things are kept that can be made again: objects, images, the scan for components."""

from __future__ import annotations

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
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)
