"""History becomes state and nothing else: nothing open, no window, no versions; live events go on from it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError
from pipeline.runners import learn
from pipeline.runners.learn import LearnOptions, main, settled
from schemas.event import Event
from tests.pipeline.log_of_requests import GEO, Outcome, Record, catalogue, core, log, record, slices
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


@settings(max_examples=12)
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


def test_a_theft_that_came_back_within_the_day_and_was_kept_quiet_is_told_live_in_the_same_visit() -> None:
    """The history rang once that day, so its second visit was only kept from being learned: nobody heard of either."""
    whole, _ = run(slices(RECORDS, []))
    opening = next(x.offset for x in whole.incidents.values() if x.change == "opened")
    burst = [each for each in RECORDS if re.search(rb'"r10\d{3}"', each[1] or b"")]
    again = [moved(each, 3 * 3_600_000, "again") for each in burst]
    history = sorted([*RECORDS[: opening + 200], *again[:-10]], key=lambda each: each[2])
    history = [each for each in history if each[2] <= again[-10][2]]
    live = [*again[-10:], moved(burst[-1], 3 * 3_600_000 + 60_000, "more")]
    judge, heard = core(), Outcome()
    heard.take(judge.process(slices(history, [])[0]))
    assert len({x.incident_id for x in heard.incidents.values()}) == 1
    assert not judge.state.open
    settled(judge.state, len(history))
    primed = restored(judge)
    primed.adopt(Sides(catalogue(), GEO, "c1"))
    told = Outcome()
    told.take(primed.process(slices(live, [], len(history))[0]))
    assert [x.key_id for x in told.incidents.values() if x.change == "opened"] == ["pk_1"]


def moved(sent: Record, by_ms: int, name: str) -> Record:
    event = msgspec.json.decode(sent[1] or b"", type=Event)
    return record(
        msgspec.structs.replace(event, ts_us=event.ts_us + by_ms * 1000, request_id=f"{event.request_id}{name}")
    )


@pytest.mark.parametrize("at", ["start", "end"])
def test_what_comes_while_history_is_judged_is_judged_live(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Reading and judging years of history takes hours, and the gateway goes on."""
    log_end, written = 40, list[dict[int, int]]()

    async def edges(*_: Any) -> dict[int, int]:
        return {0: 0 if at == "start" else log_end}

    def judged(*_: Any) -> Any:
        nonlocal log_end
        log_end += 1_000
        return SimpleNamespace(cores=[], outcome=SimpleNamespace(events=1, rejected={}, incidents={}))

    async def nothing(*_: Any) -> Any:
        return None

    async def one(*_: Any) -> int:
        return 1

    async def set_offsets(kafka: Any, topic: str, offsets: dict[int, int]) -> None:
        written.append(offsets)

    fakes: dict[str, Any] = {
        "_edges": edges, "_judged": judged, "refuse_members": nothing, "_refuse_state": nothing, "ensure_topics": one,
        "set_offsets": set_offsets, "warm_up": lambda: None,
        "topic_range": SimpleNamespace(describe=lambda *_: SimpleNamespace(epoch="e")),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(learn, name, fake)
    assert main(Config(), LearnOptions(paths=(Path(__file__),), at=at)) == 0
    assert written == [{0: 0 if at == "start" else 40}]


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize(("topic", "goes_on"), [("api.requests", 33), ("old.requests", 0)])
def test_after_history_of_the_requests_topic_itself_workers_go_on_where_it_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str, topic: str, goes_on: int
) -> None:
    """From its start the last two minutes, which are not late, would be judged twice."""
    judged, written = list[dict[int, int]](), list[dict[int, int]]()

    async def ends_of(config: Config, topic: Any, to: str) -> dict[int, int]:
        return {0: 33}

    async def read_range(*_: Any, ends: dict[int, int]) -> Any:
        judged.append(ends)
        for _ in ():
            yield []

    async def edges(*_: Any) -> dict[int, int]:
        return {0: 0 if at == "start" else 40}

    async def nothing(*_: Any) -> Any:
        return None

    async def one(*_: Any) -> int:
        return 1

    async def set_offsets(kafka: Any, topic: str, offsets: dict[int, int]) -> None:
        written.append(offsets)

    class Fed:
        def __init__(self, *_: Any) -> None:
            self.cores: list[Any] = []
            self.outcome = SimpleNamespace(events=1, rejected={}, incidents={})

        def finish(self) -> None:
            """Nothing waits."""

    def anything(*_: Any) -> Any:
        return None

    fakes: dict[str, Any] = {
        "_edges": edges, "refuse_members": nothing, "_refuse_state": nothing, "ensure_topics": one, "Replay": Fed,
        "set_offsets": set_offsets, "warm_up": anything, "read_catalogue": nothing, "read_controls": nothing,
        "Sides": anything, "open_geo": anything,
        "topic_range": SimpleNamespace(
            describe=lambda *_: SimpleNamespace(epoch="e"), ends_of=ends_of, read_range=read_range
        ),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(learn, name, fake)
    assert main(Config(), LearnOptions(topic=topic, at=at)) == 0
    assert judged == [{0: 33}], "what is judged and where workers go on are cut at one place"
    assert written == [{0: goes_on if goes_on or at == "start" else 40}]
    assert ("go on in api.requests where this history ended" in capsys.readouterr().out) == (topic == "api.requests")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LearnOptions(), "name files or folders to learn from, or a --topic"),
        (LearnOptions(paths=(Path("x"),), topic="t"), "one of the two"),
        (LearnOptions(paths=(Path("x"),), format="xml"), "known are"),
        (LearnOptions(paths=(Path("x"),), at="middle"), "there are start and end"),
        (LearnOptions(paths=(Path("no-such.log"),)), "no-such.log does not exist"),
    ],
)
def test_a_wrong_use_says_what_to_do(options: LearnOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        main(Config(), options)
