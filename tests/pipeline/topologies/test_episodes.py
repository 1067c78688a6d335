"""Incidents of sources and of the fleet: as many as there may be, and every one that opened is told to be closed."""

from __future__ import annotations

from pipeline.topologies.episodes import MOST, NOT_FOLLOWED, Episodes, Evidence
from schemas.incident import Incident
from tests.pipeline.topologies.messages import HOUR_US, START_US


def tell(episodes: Episodes, number: int, at_us: int, out: list[Incident], rule: str = "guessing") -> None:
    episodes.tell(
        Evidence(
            subject=f"source:{number}", rule=rule, first_us=at_us, first_id=f"{number}", ts_us=at_us, severity="medium",
            rung="observe", text="guesses.", findings=(), keys_total=1,
        ), 0, 0, out,
    )  # fmt: skip


def test_of_more_than_can_be_followed_every_one_is_told_to_be_closed() -> None:
    episodes, out = Episodes(), list[Incident]()
    for number in range(2 * MOST):
        tell(episodes, number, START_US + number, out)
    opened = {incident.incident_id for incident in out if incident.change == "opened"}
    early = [incident for incident in out if incident.change == "closed"]
    assert len(opened) == 2 * MOST and len(opened) - len(early) == len(episodes.register) <= MOST
    assert all(incident.text.endswith(NOT_FOLLOWED) and incident.revision == 2 for incident in early)
    episodes.pass_time(START_US + 2 * HOUR_US, out)
    closed = [incident.incident_id for incident in out if incident.change == "closed"]
    assert set(closed) == opened and len(closed) == len(opened)


def test_closed_ones_make_room_before_one_that_is_open() -> None:
    episodes, out = Episodes(), list[Incident]()
    tell(episodes, 0, START_US, out, "silence")
    for number in range(1, MOST):
        tell(episodes, number, START_US + number, out)
    episodes.pass_time(START_US + 2 * HOUR_US, out)
    before = len(out)
    for number in range(MOST, MOST + 1_000):
        tell(episodes, number, START_US + 2 * HOUR_US + number, out)
    assert episodes.is_open("source:0", "silence")
    assert {incident.change for incident in out[before:]} == {"opened"}
