"""At which offsets a replay takes up what people said, out of the rows of `adoptions`."""

from __future__ import annotations

import pytest

from pipeline.control.controls import Controls
from pipeline.errors import Fatal
from pipeline.runners.adopting import NOTHING_DUE, Adoption, adopted_by

CONTROLS = Controls.of("e", [], 9)


def test_each_partition_has_its_own_steps() -> None:
    rows = [Adoption(0, 0, ""), Adoption(1, 5, "e/2"), Adoption(0, 40, "e/2"), Adoption(0, 70, "e/3")]
    assert adopted_by(rows, CONTROLS, "api.control").offsets == {0: [(0, 0), (40, 2), (70, 3)], 1: [(5, 2)]}
    assert adopted_by([], CONTROLS, "api.control") is NOTHING_DUE


def test_a_row_of_a_worker_that_was_thrown_out_while_it_adopted_is_passed_over() -> None:
    """Frozen before its manifest, it thaws and tells of less than its successor judges with by then."""
    rows = [Adoption(0, 0, "e/1"), Adoption(0, 40, "e/3"), Adoption(0, 55, "e/2"), Adoption(0, 70, "e/4")]
    assert adopted_by(rows, CONTROLS, "api.control").offsets == {0: [(0, 1), (40, 3), (70, 4)]}


def test_steps_on_a_control_topic_that_was_made_anew_are_refused() -> None:
    with pytest.raises(Fatal, match=r"api\.control was made anew"):
        adopted_by([Adoption(0, 40, "older/3")], CONTROLS, "api.control")
