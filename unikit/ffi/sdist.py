"""The source distribution: the whole clone, not only the package.

setuptools would leave out tests, documentation and benchmarks without a ``MANIFEST.in``; what they
prove belongs to the sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from setuptools.command.sdist import sdist

FOLDERS = ("tests", "docs", "benchmarks", ".ci")
FILES = ("CHANGELOG.md", ".clang-format", ".gitignore")
_LEFT_OUT = {"__pycache__", "_build", "build", "dist", ".venv", ".hypothesis", ".benchmarks"}
_ENDINGS = {".pyc", ".so", ".o"}


class Sdist(sdist):  # type: ignore[misc]
    """``sdist`` that takes the tests, the documentation, the benchmarks and the CI along."""

    def make_distribution(self) -> None:
        """Add the folders beside the package, then pack."""
        self.filelist.extend(map(str, files(Path())))
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()


def files(root: Path) -> Iterator[Path]:
    """Yield the files beside the package that belong to the sources, nothing built among them."""
    for name in FILES:
        if (root / name).is_file():
            yield root / name
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and path.suffix not in _ENDINGS and not _LEFT_OUT & set(parts) \
                    and not any(part.endswith(".egg-info") for part in parts):
                yield path
