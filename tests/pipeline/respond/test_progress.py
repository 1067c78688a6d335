"""Commit points: nothing unfinished is ever committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.respond.progress import Progress


def test_the_oldest_unfinished_incident_holds_the_commit_back() -> None:
    progress = Progress()
    for offset in (5, 6, 7):
        progress.begin(0, offset)
    progress.finish(0, 6)
    progress.finish(0, 7)
    assert progress.commit_points() == {0: 5}
    progress.finish(0, 5)
    assert progress.commit_points() == {0: 8}


def test_what_is_committed_is_not_committed_again() -> None:
    progress = Progress()
    progress.begin(0, 5)
    progress.finish(0, 5)
    progress.committed(progress.commit_points())
    assert progress.commit_points() == {}


def test_a_partition_that_went_away_is_not_committed() -> None:
    progress = Progress()
    progress.begin(0, 5)
    progress.forget([0])
    progress.finish(0, 5)
    assert progress.commit_points() == {}
    assert progress.unfinished == 0


@given(order=st.permutations(range(12)), done=st.integers(0, 12))
def test_all_below_the_commit_point_is_finished_in_any_order(order: list[int], done: int) -> None:
    progress = Progress()
    for offset in range(12):
        progress.begin(0, offset)
    for offset in order[:done]:
        progress.finish(0, offset)
    point = progress.commit_points()[0]
    assert set(range(point)) <= set(order[:done])
    assert point == 12 or point not in order[:done]
