"""The ELF reader and damaged images, for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_elf import damage


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_random_damage_for_long(tmp_path: Path, seed: int) -> None:
    """A hundred thousand files each: an image or an ImageError, and never anything else."""
    assert 0 < damage(tmp_path, seed, 100_000) < 100_000
