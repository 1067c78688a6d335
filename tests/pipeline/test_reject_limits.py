"""How many rejects are a bad record now and then, and how many a deploy that has gone wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import Worker
from pipeline.core import Reject
from pipeline.errors import Fatal
from pipeline.reject_limits import SPAN, check
from pipeline.state.partition import Meta

LIMITS = Worker(max_reject_ratio=0.1, max_reject_run=500)


def rejects(count: int, reason: str = "not_json") -> list[Reject]:
    return [
        Reject(reason=reason, partition=0, offset=i, detail="", size_bytes=0, payload_hash="", payload=None)
        for i in range(count)
    ]


def test_a_tenth_of_a_span_is_borne_and_one_more_stops_the_partition() -> None:
    check(Meta(), LIMITS, 3, SPAN, rejects(SPAN // 10))
    with pytest.raises(Fatal, match=r"partition 3: 10% of the last 10000 .* 'not_json'.* worker.max_reject_ratio"):
        check(Meta(), LIMITS, 3, SPAN, rejects(SPAN // 10 + 1))


def test_the_share_is_taken_over_a_span_however_bad_its_first_slice_is() -> None:
    meta = Meta()
    check(meta, LIMITS, 0, 100, rejects(99))
    check(meta, LIMITS, 0, SPAN, rejects(0))
    assert (meta.record_recent, meta.reject_recent) == (0, 0), "the next span begins anew"


def test_a_run_without_one_good_record_stops_at_once_and_the_most_frequent_reason_is_named() -> None:
    check(Meta(), LIMITS, 0, 500, rejects(500))
    with pytest.raises(Fatal, match="mostly 'no_key'"):
        check(Meta(), LIMITS, 0, 501, [*rejects(200), *rejects(301, "no_key")])


def test_one_good_record_ends_a_run() -> None:
    meta = Meta()
    for _ in range(9):
        check(meta, LIMITS, 0, 101, rejects(100))
        assert meta.reject_run == 0


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_a_run_is_the_same_however_slices_cut_it_and_whoever_was_restarted_between(cuts: list[int]) -> None:
    meta, stopped = Meta(), False
    for cut in cuts:
        try:
            check(meta, LIMITS, 0, cut, rejects(cut))
        except Fatal:
            stopped = True
            break
        meta = Meta(reject_run=meta.reject_run, record_recent=meta.record_recent, reject_recent=meta.reject_recent)
    assert stopped == (sum(cuts) > LIMITS.max_reject_run)
