"""``unikit export``: a component as plain C for other projects."""

from __future__ import annotations

import argparse
from pathlib import Path

from unikit import registry
from unikit.errors import ImageError
from unikit.image.export import export


def do_export(choice: argparse.Namespace) -> int:
    """Write the component and say how to use it."""
    folder = Path(choice.folder)
    try:
        written = export(registry.find(choice.component), folder)
    except OSError as error:
        raise ImageError(f"cannot write {folder}: {error.strerror}") from error
    for path in written:
        print(path)
    print(f"now: make -C {folder}; read {folder / 'README'}")
    return 0
