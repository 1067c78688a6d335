"""History becomes state and nothing else: nothing open, no window, no versions; live events go on from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError
from pipeline.runners.learn import LearnOptions, main, settled
from tests.pipeline.log_of_requests import GEO, Outcome, catalogue, core, log, slices
from tests.pipeline.test_flow import restored, run

RECORDS = log(1)


def test_what_is_open_at_the_end_of_history_is_closed_in_silence() -> None:
    judge = core()
    whole, _ = run(slices(RECORDS, []))
    at = next(x.offset for x in whole.incidents.values() if x.change == "opened") + 1
    judge.process(slices(RECORDS[:at], [])[0])
    assert judge.state.open and (judge.state.minutes.rows["live"] == 1).any()
    settled(judge.state, 7)
    state = judge.state
    assert not state.open and not state.incidents.rows
    assert not state.keys.data["fusion"]["open"].any()
    assert not any((getattr(state, name).rows["live"] == 1).any() for name in ("minutes", "hours", "sources"))
    assert not np.any(state.book.data["head_1m"]) and not np.any(state.book.data["head_1h"])
    assert (state.meta.next_offset, state.meta.catalogue, state.meta.adopted) == (7, "", {})
    assert state.meta.watermark_us > 0


def test_a_worker_that_loads_learned_state_adopts_its_side_inputs_at_the_live_logs_first_offset() -> None:
    judge = core()
    judge.process(slices(RECORDS[:900], [])[0])
    settled(judge.state, 40)
    live = restored(judge)
    rows = live.adopt(Sides(catalogue(), GEO, "c1"))
    assert set(rows["adoptions"]["input"]) == {"catalogue", "geo", "config"}
    assert set(rows["adoptions"]["offset"]) == {40}
    outcome = Outcome()
    outcome.take(live.process(slices(RECORDS[900:], [], 40)[0]))
    known = {x.key_id: x.seen_days for x in outcome.incidents.values()}
    assert known["pk_1"] > 1, "known since its first use in history"


@settings(max_examples=12, deadline=None)
@given(at=st.integers(200, 1_400), seed=st.integers(1, 3))
def test_a_worker_that_was_primed_judges_what_follows_as_one_that_saw_the_history_live(at: int, seed: int) -> None:
    """All that the partition's keys share is primed, too: peers' priors, sizes and errors of routes, calibration.

    But for what the history rang: nobody heard it, so that it is told anew if it goes on (below).
    """
    history, live = slices(log(seed), [at])
    alive = core()
    assume(not alive.process(history).incidents)
    judge = core()
    judge.process(history)
    settled(judge.state, at)
    primed = restored(judge)
    primed.adopt(Sides(catalogue(), GEO, "c1"))
    for name in ("keys", "shared"):
        one, other = getattr(primed.state, name), getattr(alive.state, name)
        assert one.data[: one.used].tobytes() == other.data[: other.used].tobytes(), name
    one, other = Outcome(), Outcome()
    one.take(primed.process(live))
    other.take(alive.process(live))
    assert one.incidents == other.incidents
    assert one.rejects == other.rejects
    for table in ("findings", "incidents", "evidence", "requests"):
        assert one.rows.get(table) == other.rows.get(table), table
    for name in ("keys", "shared"):
        one_, other_ = getattr(primed.state, name), getattr(alive.state, name)
        assert one_.data[: one_.used].tobytes() == other_.data[: other_.used].tobytes(), name


@pytest.mark.parametrize("after", [1, 20])
def test_a_theft_that_goes_on_where_history_ends_is_told_at_the_first_live_event_that_shows_it(after: int) -> None:
    judge = core()
    whole, _ = run(slices(RECORDS, []))
    at = next(x.offset for x in whole.incidents.values() if x.change == "opened") + after
    judge.process(slices(RECORDS[:at], [])[0])
    assert judge.state.open
    settled(judge.state, at)
    live = restored(judge)
    live.adopt(Sides(catalogue(), GEO, "c1"))
    told = Outcome()
    told.take(live.process(slices(RECORDS[at:], [], at)[0]))
    opened = [x for x in told.incidents.values() if x.change == "opened"]
    assert [x.key_id for x in opened] == ["pk_1"]
    assert opened[0].offset < at + 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LearnOptions(), "name files or folders to learn from, or a --topic"),
        (LearnOptions(paths=(Path("x"),), topic="t"), "one of the two"),
        (LearnOptions(paths=(Path("x"),), format="xml"), "known are"),
        (LearnOptions(paths=(Path("x"),), at="middle"), "there are start and end"),
    ],
)
def test_a_wrong_use_says_what_to_do(options: LearnOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        main(Config(), options)
