"""What a person does in PagerDuty is done to the case here: signed, young, once, and no echo of our own word."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from pipeline.config.tree import Config, Console, Secret
from pipeline.console.app import make_app
from pipeline.console.board import Board
from pipeline.console.pagerduty import MAX_BODY_BYTES, PATH, SIGNATURE, Hook
from pipeline.respond.desk import Desk
from pipeline.respond.night.cases import Case
from pipeline.respond.night.notices import lead_of
from pipeline.respond.night.records import CaseSeen
from tests.console.waiting import in_memory
from tests.pipeline.respond.incidents import NOW_S, incident
from tests.pipeline.respond.memory_log import MemoryPublisher

SECRET = Secret("of-the-subscription")


def webhook(case_id: str, **changes: Any) -> bytes:
    """As PagerDuty sends it, but for the changes."""
    event = {
        "id": "01CH754SM17TWPE2V2H4VPBRO7", "event_type": "incident.acknowledged", "resource_type": "incident",
        "occurred_at": datetime.fromtimestamp(NOW_S - 2, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "agent": {"html_url": "https://acme.pagerduty.com/users/P1", "id": "P1", "summary": "Ann\n Onymous",
                  "type": "user_reference"},
        "client": None, "data": {"id": "Q1", "type": "incident", "status": "acknowledged", "incident_key": case_id},
    }  # fmt: skip
    return json.dumps({"event": event | changes}).encode()


def signature(body: bytes, secret: str = SECRET.reveal()) -> str:
    return "v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class World:
    """A console with one open case."""

    def __init__(self) -> None:
        self.decisions = in_memory()
        self.board: Board | None = Board(Desk(self.decisions, "console"))
        hook = Hook(SECRET, lambda: self.board, lambda: NOW_S)
        self.browser = TestClient(Starlette(routes=[Route(PATH, hook.post, methods=["POST"])]))

    def open(self) -> None:
        assert self.browser.portal is not None
        self.browser.portal.call(self.decisions.start)
        seen = CaseSeen(
            incident_id="i1", revision=1, key_id="k1", severity="critical", closed=False, at_us=1, links=("key:k1",),
            window_s=3600.0, partition=0, body=lead_of(incident()),
        )  # fmt: skip
        self.browser.portal.call(self.decisions.write, seen)

    @property
    def case(self) -> Case:
        assert self.board is not None
        (case,) = self.board._books.cases.cases.values()
        return case

    def post(self, body: bytes, signed: str | None = None) -> int:
        sent = signature(body) if signed is None else signed
        return self.browser.post(PATH, content=body, headers={SIGNATURE: sent}).status_code


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with made.browser:
        made.open()
        yield made
        assert made.browser.portal is not None
        made.browser.portal.call(made.decisions.close)


def test_an_acknowledgement_and_an_end_in_pagerduty_come_back_to_the_case(world: World) -> None:
    assert world.post(webhook(world.case.case_id)) == 200
    assert (world.case.state, world.case.by) == ("acknowledged", "Ann Onymous in PagerDuty")
    assert world.post(webhook(world.case.case_id, event_type="incident.resolved")) == 200
    assert world.case.state == "closed"


def test_what_is_so_already_is_not_said_again_or_the_two_would_answer_each_other_for_ever(world: World) -> None:
    for _ in range(3):
        world.post(webhook(world.case.case_id))
    assert world.case.rounds == 1
    world.post(webhook(world.case.case_id, event_type="incident.resolved"))
    rounds = world.case.rounds
    for event in ("incident.resolved", "incident.acknowledged"):
        world.post(webhook(world.case.case_id, event_type=event))
    assert (world.case.state, world.case.rounds) == ("closed", rounds)


@pytest.mark.parametrize("agent", [None, {"type": "service_reference", "summary": "Keywatch"}])
def test_that_nobody_is_on_it_any_more_comes_back_too_and_the_case_waits_again(world: World, agent: Any) -> None:
    unacknowledged = webhook(world.case.case_id, event_type="incident.unacknowledged", agent=agent)
    assert world.post(unacknowledged) == 200
    assert (world.case.state, world.case.rounds) == ("open", 0)  # so it was
    world.post(webhook(world.case.case_id))
    assert world.case.state == "acknowledged"
    waiting, publisher = world.case.waiting_since_us, world.decisions.publisher
    assert isinstance(publisher, MemoryPublisher)
    publisher.log.now_us += 60_000_000
    assert world.post(unacknowledged) == 200
    assert (world.case.state, world.case.by) == ("open", "a time-out in PagerDuty")
    assert world.case.waiting_since_us > waiting  # N minutes from now on somebody is called again
    world.post(webhook(world.case.case_id, event_type="incident.resolved"))
    assert world.post(webhook(world.case.case_id, event_type="incident.reopened")) == 200
    assert (world.case.state, world.case.by) == ("open", "Ann Onymous in PagerDuty")


def test_a_body_is_read_no_further_than_it_may_be_whatever_its_length_says(world: World) -> None:
    """h11 takes a length beside chunks and minds the chunks: anybody could fill the memory before he is refused."""
    large = b"x" * (MAX_BODY_BYTES + 1)
    answer = world.browser.post(PATH, content=large, headers={SIGNATURE: "v1=wrong", "content-length": "10"})
    assert answer.status_code == 413


OLD = (datetime.fromtimestamp(NOW_S, UTC) - timedelta(hours=2)).isoformat()


@pytest.mark.parametrize(
    "changes",
    [
        {"agent": None},  # the Events API: our own word
        {"agent": {"type": "service_reference", "summary": "Keywatch"}},
        {"event_type": "incident.triggered"},
        {"event_type": "pagey.ping"},
        {"occurred_at": OLD},
        {"data": {"incident_key": "case_of_nobody"}},
        {"data": {"incident_key": None}},
    ],
)
def test_all_else_is_taken_and_left_alone(world: World, changes: dict[str, Any]) -> None:
    assert world.post(webhook(world.case.case_id, **changes)) == 200
    assert (world.case.state, world.case.rounds) == ("open", 0)


def test_only_the_secrets_own_signature_over_this_very_body_counts(world: World) -> None:
    body = webhook(world.case.case_id)
    for wrong in ("", "v1=", signature(body)[3:], signature(body, "other"), signature(body + b" "), "v2=" + "0" * 64):
        assert world.post(body, wrong) == 401
    assert world.case.rounds == 0
    assert world.post(body, f"{signature(body, 'the new secret')}, {signature(body)}") == 200  # while it is rotated
    assert world.case.state == "acknowledged"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"no json", b'{"event": {"event_type": "x", "occurred_at": "soon"}}']
)
def test_what_is_signed_and_no_webhook_is_refused(world: World, body: bytes) -> None:
    assert world.post(body) == 400


def test_too_much_is_refused_and_without_the_topic_it_is_to_come_again(world: World) -> None:
    assert world.post(b" " * (MAX_BODY_BYTES + 1)) == 413
    body, board = webhook(world.case.case_id), world.board
    world.board = None
    assert world.post(body) == 503
    world.board = board
    assert world.post(body) == 200


def test_there_is_no_such_address_without_a_secret() -> None:
    def paths(console: Console) -> set[str]:
        return {getattr(route, "path", "") for route in make_app(Config(console=console)).routes}

    proxy = Secret("of-the-proxy-before-it")
    assert PATH not in paths(Console(proxy_secret=proxy))
    assert PATH in paths(Console(proxy_secret=proxy, pagerduty_secret=SECRET))
