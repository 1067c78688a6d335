"""Whether a decisions topic tells all that the audit says of it: from when on it must."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from pipeline.config.tree import Config
from pipeline.respond.ledger import forgotten
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Joined, Proposed, Switched
from pipeline.respond.ledger.forgotten import BY, Memory
from schemas.response import Response
from tests.pipeline.respond.ledger.test_ledger import proposed

NOW_S = 1_790_000_000.0
DAY_S = 86_400.0
KEPT_S = NOW_S - 27 * DAY_S


def memory(*at_s: float) -> Memory:
    found = Memory()
    for each in at_s:
        found.apply(int(each * 1e6), Switched(stop=False, by="ann"))
    return found


def test_of_an_emptied_topic_all_counts_that_retention_would_have_kept() -> None:
    found = Memory()
    found.apply(int(NOW_S * 1e6), Joined(responder="a", mark="m"))  # a responder's own, at its start
    assert found.told_since_s(KEPT_S, NOW_S) == KEPT_S


def test_a_topic_that_kept_less_before_is_not_called_emptied() -> None:
    """`retention.ms` was raised from 7 days to 28: what it deleted until then is missing and was not lost."""
    assert memory(NOW_S - 7 * DAY_S, NOW_S).told_since_s(KEPT_S, NOW_S) == NOW_S - 7 * DAY_S


def test_what_was_written_since_it_was_emptied_hides_nothing_for_two_days() -> None:
    assert memory(NOW_S - 1.9 * DAY_S).told_since_s(KEPT_S, NOW_S) == KEPT_S
    assert memory(NOW_S - 2.1 * DAY_S).told_since_s(KEPT_S, NOW_S) == NOW_S - 2.1 * DAY_S


def test_a_topic_that_keeps_all_is_asked_for_all_from_its_first_record_on() -> None:
    assert memory(NOW_S - 400 * DAY_S).told_since_s(0.0, NOW_S) == NOW_S - 400 * DAY_S


def test_whoever_found_it_emptied_before_is_not_asked_again() -> None:
    found = Memory()
    found.apply(1, Switched(stop=True, by="ann"))
    assert not found.held
    found.apply(2, Switched(stop=True, by=BY))
    assert found.held


class Topic:
    """Of decisions: another responder's proposal comes with the next look."""

    def __init__(self, memory: Memory, *ahead: Proposed) -> None:
        self.memory, self.ahead, self.written = memory, list(ahead), list[Any]()

    async def catch_up(self) -> None:
        for each in self.ahead:
            self.memory.apply(int(NOW_S * 1e6), each)

    async def write(self, record: Any) -> None:
        self.written.append(record)


@pytest.mark.parametrize("known", [True, False])
async def test_what_another_responder_did_since_the_topic_was_read_is_not_forgotten(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that start at once: the second one stopped all acts over what the first did meanwhile."""
    of = proposed("k1")
    line = Response(
        response_id=of.response_id, incident_id="i", revision=1, key_id="k1", key_version=1,
        at=datetime.now(UTC).isoformat(), stage="done", verdict="allowed", rung="revoke", reason="",
    )  # fmt: skip

    async def audit(_: Config) -> AsyncGenerator[Response, None]:
        yield line

    async def kept(_: Config) -> float:
        return 0.0

    monkeypatch.setattr(forgotten, "_audit", audit)
    monkeypatch.setattr(forgotten, "_kept_since_s", kept)
    memory = Memory()
    topic = Topic(memory, *([of] if known else []))
    await forgotten.stop_if_forgotten(Config(), cast(Decisions, topic), memory)
    assert [each.by for each in topic.written] == ([] if known else [BY])
