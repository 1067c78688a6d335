"""A seed that failed once is tried for ever: each line of seeds.txt is of a test that asks for it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.seeds import kept
from tests.simulation.test_schedules import LOADS
from tests.simulation.test_side_inputs import KINDS

FOLDER = Path(__file__).parent


def test_every_kept_seed_is_of_a_test_that_asks_for_it() -> None:
    lines = (FOLDER / "seeds.txt").read_text().splitlines()
    names = {line.split()[0] for line in lines if line and not line.startswith("#")}
    asked = {
        name for path in FOLDER.glob("kafka/test_*.py") for name in re.findall(r'kept\("(\w+)"\)', path.read_text())
    }
    assert asked >= {"whole", "covered", "kills"}
    assert names <= asked | {f"schedules-{core}" for core in LOADS} | KINDS.keys()
    assert all(kept(name) for name in names)
