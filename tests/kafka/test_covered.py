"""What looks at the rows after each kill sees what is lost, old, doubled or made up."""

from __future__ import annotations

import pytest

from tests.kafka.covered import Row, assert_covered

NEWEST = {"a": 5, "b": 7}
KNOWN = {50, 60, 70}


@pytest.mark.parametrize("more", [[], [("c", 9, 70)]], ids=["what is covered", "and what is not yet"])
def test_rows_of_a_clean_run_pass(more: list[Row]) -> None:
    assert_covered("t", NEWEST, KNOWN, [("a", 6, 60), ("b", 7, 70), *more])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([("a", 5, 50)], "missing or old"),
        ([("a", 4, 50), ("b", 7, 70)], "missing or old"),
        ([("a", 5, 51), ("b", 7, 70)], "never has"),
        ([("a", 5, 50), ("b", 7, 70), ("other part", 7, 71)], "never has"),
        ([("a", 5, 50), ("b", 7, 70), ("b", 7, 70)], "two rows"),
    ],
)
def test_a_row_that_is_lost_old_made_up_or_doubled_is_told(found: list[Row], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_covered("t", NEWEST, KNOWN, found)
