"""The seed of random tests, and the seeds that failed once: those always run.

KEYWATCH_SEED (an integer, 1 by default) chooses what random tests do; pytest's header tells it. `seeds.txt` has one
line for each seed that failed once: the test's name, the seed, and what it showed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SEED: Final = int(os.environ.get("KEYWATCH_SEED") or "1")


def kept(test: str) -> list[int]:
    """Seeds at which `test` failed once."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return [int(seed) for name, seed, *_ in words if name == test]
