"""`/api/v1`: programs see what is done, take it back and take cases; by their token alone, once, and all on record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from pipeline.config.tree import Config, Person, Secret
from pipeline.console import answers, api, app, people
from pipeline.errors import ConfigError
from pipeline.log import redact
from pipeline.migrate import migrate
from pipeline.respond.act import Acting
from pipeline.respond.carry import Carrier
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import Finished, Undo, Used, decode
from pipeline.respond.night.notices import lead_of
from pipeline.respond.night.records import CaseSaid, CaseSeen
from pipeline.sinks.connect import connect
from tests.console.filled import TOKENS, config
from tests.console.waiting import RESPONDER, TOPIC, connected, in_memory, linked, propose, unread
from tests.pipeline.respond.adapters.fake_kong import FakeKong
from tests.pipeline.respond.adapters.peers import Running, running, snapshot
from tests.pipeline.respond.incidents import incident
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.memory_log import MemoryPublisher

BOTS = {role: f"{role}-token-of-a-machine-01" for role in ("viewer", "responder")}
SEEN = CaseSeen(
    incident_id="i1", revision=1, key_id="k1", severity="critical", closed=False, at_us=1, links=("key:k1",),
    window_s=3600.0, partition=0, body=lead_of(incident()),
)  # fmt: skip
WHY = {"reason": "it was our own deploy"}


@pytest.fixture(scope="module")
def settings(front: str) -> Iterator[Config]:
    made = config(front, "keywatch_api")
    machines = tuple(
        Person(name=f"bot-{role}", role=role, token=Secret(t), machine=True) for role, t in BOTS.items()
    )  # fmt: skip
    both = msgspec.structs.replace(made.console, people=made.console.people + machines)
    migrate(made.clickhouse)
    yield msgspec.structs.replace(made, console=both)
    client = connect(made.clickhouse, None)
    client.command(f"DROP DATABASE {made.clickhouse.database}")
    client.close()


class World:
    """A console before a decisions topic in memory; no cookie, no form."""

    def __init__(self, made: Config, stack: ExitStack) -> None:
        self.made, self.decisions = made, in_memory()
        self.link = linked(self.decisions)
        console = app.make_app(made, link=self.link, of_keys=unread())
        self.client = stack.enter_context(TestClient(console, base_url="http://127.0.0.1"))
        assert self.client.portal is not None
        self.portal = self.client.portal
        self.portal.call(connected, self.link)

    def get(self, path: str, role: str = "viewer") -> Any:
        return self.client.get(api.ROOT + path, headers=bearer(BOTS[role]))

    def post(self, path: str, body: Any = WHY, role: str = "responder", **more: Any) -> Any:
        return self.client.post(api.ROOT + path, json=body, headers=bearer(BOTS[role]), **more)

    def propose(self, **about: Any) -> None:
        self.portal.call(lambda: propose(self.decisions, **about))

    def approve(self) -> None:
        self.portal.call(self.decisions.write, RESPONDER.says(self.act.proposal.group))

    def finish(self, direction: str = "apply", result: str = "done") -> None:
        of = self.act.proposal
        record = Finished(act_id=of.act_id, response_id=of.response_id, result=result, direction=direction)  # type: ignore[arg-type]
        self.portal.call(self.decisions.write, record)

    @property
    def act(self) -> Act:
        (act,) = self.decisions.ledger.acts.values()
        return act

    @property
    def undo(self) -> str:
        return f"/acts/{self.act.proposal.response_id}/undo"

    def said(self, kind: type) -> list[Any]:
        publisher = self.decisions.publisher
        assert isinstance(publisher, MemoryPublisher)
        return [word for value in publisher.log.values(TOPIC) if isinstance(word := decode(value), kind)]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def world(settings: Config) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(settings, stack)


def carrier(world: World, fake: FakeKong, server: Running) -> Carrier:
    """The responder's hand, with the real adapter to the peer."""
    publisher = world.decisions.publisher
    assert isinstance(publisher, MemoryPublisher)

    def now_s() -> float:
        return publisher.log.now_us / 1e6

    actors = {"keys": Acting(fake.adapter(server.url), str, now_s)}
    return Carrier("api.responses", publisher, world.decisions, now_s, actors, actors)


def test_an_undo_by_a_program_restores_at_the_peer_exactly_what_was(world: World) -> None:
    fake = FakeKong()
    with world.portal.wrap_async_context_manager(running(fake.routes())) as server:
        before, hand = snapshot(fake), carrier(world, fake, server)
        world.propose(key_id=fake.key_id)
        world.approve()
        world.portal.call(hand.carry_out, world.act)
        assert fake.works("suspend")
        asked = world.post(world.undo)
        assert (asked.status_code, asked.json()["undo"], asked.json()["stage"]) == (202, "open", "done")
        world.portal.call(hand.undo, world.act)
        assert snapshot(fake) == before
    told = world.get(f"/acts/{world.act.proposal.response_id}").json()
    assert (told["stage"], told["undo_by"], told["can_undo"]) == ("undone", "bot-responder", False)


def test_an_undo_is_asked_for_once_however_often_it_is_sent_and_again_only_after_it_failed(world: World) -> None:
    world.propose()
    world.approve()
    world.finish()
    assert [world.post(world.undo).status_code for _ in range(3)] == [202, 202, 202]
    assert [word.by for word in world.said(Undo)] == ["bot-responder"]
    world.finish("undo", "failed")
    assert world.post(world.undo).status_code == 202
    world.finish("undo")
    assert world.post(world.undo, {}).status_code == 200
    assert len(world.said(Undo)) == 2


def test_what_goes_on_is_listed_from_the_proposal_to_the_end_by_incident_and_by_key(world: World) -> None:
    world.propose(incident_id="i7", key_id="k7")
    for step, stage in ((world.approve, "pending"), (world.finish, "open"), (lambda: None, "done")):
        (row,) = world.get("/acts").json()["acts"]
        assert (row["key_id"], row["stage"], row["can_undo"]) == ("k7", stage, stage == "done")
        step()
    assert world.get("/acts?incident=i7&key=k7").json()["acts"] == [row]
    assert world.get("/acts?incident=i7&key=k8").json() == {"acts": [], "more": 0}
    world.post(world.undo)
    world.finish("undo")
    assert world.get("/acts").json()["acts"] == []


def test_what_can_not_be_undone_is_refused_with_what_to_do_instead(world: World) -> None:
    world.propose()
    for stage, step, do in (("pending", world.approve, "decline it"), ("open", lambda: None, "ask again")):
        answer = world.post(world.undo)
        assert (world.act.stage, answer.status_code, do in answer.json()["do"]) == (stage, 409, True)
        step()
    assert world.act.undo is None


def test_a_rotation_whose_new_key_is_in_use_is_not_undone_and_how_to_keep_the_old_one_is_said(world: World) -> None:
    of = proposed("k1", rung="rotate", act_id="r", response_id="r")
    for record in (of, finished(of), Used(act_id="r", response_id="r", at_us=1)):
        world.portal.call(world.decisions.write, record)
    assert world.get("/acts/r").json()["can_undo"] is False
    answer = world.post(world.undo)
    assert (answer.status_code, "new_key_in_use" in answer.json()["error"]) == (409, True)
    assert "keywatch respond extend k1 --until WHEN" in answer.json()["do"]


def test_what_failed_may_have_been_done_and_can_be_undone_as_it_says(world: World) -> None:
    world.propose()
    world.approve()
    world.finish(result="failed")
    told = world.get(f"/acts/{world.act.proposal.response_id}").json()
    assert (told["stage"], told["can_undo"]) == ("failed", True)
    assert world.post(world.undo).status_code == 202
    assert world.get(f"/acts/{world.act.proposal.response_id}").json()["can_undo"] is False


def test_a_case_is_acknowledged_once(world: World) -> None:
    world.portal.call(world.decisions.write, SEEN)
    (case,) = world.get("/cases").json()["cases"]
    for body in (WHY, {}):
        answer = world.post(f"/cases/{case['case_id']}/ack", body)
        assert (answer.status_code, answer.json()["state"], answer.json()["by"]) == (
            200,
            "acknowledged",
            "bot-responder",
        )
    assert [(word.verb, word.by, word.reason) for word in world.said(CaseSaid)] == [
        ("ack", "bot-responder", WHY["reason"])
    ]
    world.portal.call(world.decisions.write, CaseSaid(case_id=case["case_id"], verb="close", by="ann"))
    assert world.post(f"/cases/{case['case_id']}/ack").status_code == 409
    assert world.get("/cases").json() == {"cases": [], "more": 0}


def test_only_a_machines_own_token_opens_it_and_opens_no_page(world: World) -> None:
    world.propose()
    world.approve()
    world.finish()
    assert world.client.post("/sign-in", data={"token": TOKENS["admin"]}, follow_redirects=False).status_code == 303
    assert world.client.get("/policy").status_code == 200, "the cookie is good"
    proxied = {"x-keywatch-proxy": "s" * 20, "x-forwarded-user": "bea"}
    person = bearer(TOKENS["admin"])
    for headers in ({}, person, bearer(""), bearer("guess"), {"authorization": BOTS["responder"]}, proxied):
        answer = world.client.post(api.ROOT + world.undo, json=WHY, headers=headers)
        assert (answer.status_code, "Bearer TOKEN" in answer.json()["do"]) == (401, True)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert world.act.undo is None
    world.client.cookies.clear()
    assert world.client.post("/sign-in", data={"token": BOTS["responder"]}).status_code == 403
    assert world.client.get("/policy", headers=bearer(BOTS["responder"]), follow_redirects=False).status_code == 303


def test_what_is_wrong_is_said_in_json_with_what_to_do_and_nothing_is_done(world: World) -> None:
    world.propose()
    world.approve()
    world.finish()
    token, form = bearer(BOTS["responder"]), {"content-type": "application/x-www-form-urlencoded"}
    long = {"reason": "x" * 1001}
    told = {
        "viewer": (403, world.post(world.undo, role="viewer")),
        "no reason": (400, world.post(world.undo, {"reason": " "})),
        "no such field": (400, world.post(world.undo, {"because": "x"})),
        "too long": (400, world.post(world.undo, long)),
        "no json": (400, world.client.post(api.ROOT + world.undo, content=b"{", headers=token | JSON)),
        "a form": (415, world.client.post(api.ROOT + world.undo, content=b"reason=x", headers=token | form)),
        "too large": (413, world.client.post(api.ROOT + world.undo, content=flood(), headers=token | JSON)),
        "unknown act": (404, world.post("/acts/ffff/undo")),
        "its beginning": (404, world.post(f"/acts/{world.act.proposal.response_id[:12]}/undo")),
        "unknown case": (404, world.post("/cases/none/ack")),
        "nowhere": (404, world.get("/keys")),
        "another method": (404, world.client.delete(api.ROOT + "/acts", headers=token)),
    }
    for name, (status, answer) in told.items():
        assert (name, answer.status_code, set(answer.json())) == (name, status, {"error", "do"})
        assert answer.headers["cache-control"] == "no-store"
    assert world.said(Undo) == []
    world.link.board = None
    answer = world.post(world.undo)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


JSON = {"content-type": "application/json"}


def flood() -> Iterator[bytes]:
    """Without a length; nobody may ask for all of it."""
    for _ in range(api.MAX_BODY_BYTES):
        yield b" " * 64


def test_every_call_is_on_record_with_who_what_and_why(world: World) -> None:
    world.propose()
    world.approve()
    world.finish()
    world.post(world.undo)
    world.post(world.undo, role="viewer")
    world.client.post(api.ROOT + world.undo, json=WHY)
    asking = connect(world.made.clickhouse, world.made.clickhouse.database)
    path = api.ROOT + world.undo
    rows = asking.query(
        f"SELECT person, role, method, status, detail FROM console_log WHERE path = '{path}' ORDER BY at"
    ).result_rows
    asking.close()
    assert rows[-3:-1] == [
        ("bot-responder", "responder", "POST", 202, f"being undone: {WHY['reason']}"),
        ("bot-viewer", "viewer", "POST", 403, "this needs the role responder, yours is viewer"),
    ]
    assert rows[-1][:4] == ("", "", "POST", 401)


def test_a_call_is_on_record_whatever_its_query_and_one_call_is_one_line_of_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.propose()
    world.approve()
    world.finish()
    caplog.set_level("INFO", "pipeline.console.answers")
    sent: list[Any] = []
    body = msgspec.json.encode({"reason": "ours\n12:00:00.000 INFO pipeline.console.answers: ann GET /policy 200"})
    served: Any = world.client.app
    scope = {
        "type": "http", "method": "POST", "path": api.ROOT + world.undo, "query_string": b"\xff", "scheme": "http",
        "headers": [(b"authorization", f"Bearer {BOTS['responder']}".encode()), (b"content-type", b"application/json")],
        "client": None, "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    world.portal.call(served, scope, receive, send)
    assert (sent[0]["status"], len(world.said(Undo))) == (202, 1)
    world.client.get(api.ROOT + "/acts/x%1b%5b2J%0ay")
    (done, refused) = caplog.messages
    wanted = f"bot-responder POST {api.ROOT}{world.undo} 202 being undone: ours "
    assert redact(done).startswith(redact(wanted))  # the log does, once another test of the process has set it up
    assert all(line.isprintable() for line in (done, refused))


def test_an_error_of_its_own_is_an_answer_and_a_row_as_well(world: World) -> None:
    world.portal.call(world.decisions.write, msgspec.structs.replace(SEEN, body="no incident"))
    answer = world.get("/cases")
    assert (answer.status_code, set(answer.json())) == (500, {"error", "do"})
    asking = connect(world.made.clickhouse, world.made.clickhouse.database)
    assert asking.query("SELECT person, path FROM console_log WHERE status = 500").result_rows == [
        ("bot-viewer", "/api/v1/cases")
    ]
    asking.close()


def test_calls_of_nobody_cost_a_bounded_number_of_rows_and_never_those_of_who_has_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "NOBODYS_ROWS", 3)
    asking = connect(world.made.clickhouse, world.made.clickhouse.database)
    count = "SELECT countIf(person = ''), countIf(person != '') FROM console_log WHERE path = '/api/v1/flooded'"
    for _ in range(5):
        assert world.client.get(api.ROOT + "/flooded").status_code == 401
    assert world.get("/flooded").status_code == 404
    assert asking.query(count).result_rows == [(3, 1)]
    asking.close()


def test_two_acknowledgements_at_once_are_said_once(world: World) -> None:
    world.portal.call(world.decisions.write, SEEN)
    (case,) = world.get("/cases").json()["cases"]

    async def twice() -> list[bool]:
        board = world.link.board
        assert board is not None
        return await asyncio.gather(*(board.say_of_case(case["case_id"], "ack", "bot") for _ in range(2)))

    assert sorted(world.portal.call(twice)) == [False, True]
    assert len(world.said(CaseSaid)) == 1


def test_wrong_tokens_are_answered_slowly_once_they_flood(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(api, "pause", sleep)
    for _ in range(people.MOST_FAILURES + 1):
        world.client.get(api.ROOT + "/acts", headers=bearer("guess"))
    assert slept == [people.SLOW_S] * 2
    assert world.get("/acts").status_code == 200, "a right one is taken all the same"


def test_every_address_stands_in_the_documents_with_its_role(settings: Config) -> None:
    text = (Path(__file__).parents[2] / "deploy" / "docs" / "responding.md").read_text()
    for route in app.make_app(settings).routes:
        if isinstance(route, Route) and route.path.startswith(api.ROOT) and "rest" not in route.path:
            method, role = ("POST", "responder") if "POST" in (route.methods or ()) else ("GET", "viewer")
            [row] = [line for line in text.splitlines() if re.match(rf"\| `{method} {re.escape(route.path)}[`?]", line)]
            assert row.split("|")[2].strip() == role


def test_without_a_machine_there_is_no_such_address_and_a_short_token_is_none(settings: Config) -> None:
    only = tuple(person for person in settings.console.people if not person.machine)
    without = msgspec.structs.replace(settings, console=msgspec.structs.replace(settings.console, people=only))
    paths = {getattr(route, "path", "") for route in app.make_app(without).routes}
    assert not [path for path in paths if path.startswith(api.ROOT)]
    short = Person(name="bot", role="viewer", token=Secret("short"), machine=True)
    with pytest.raises(ConfigError, match="fewer than 20"):
        people.Door(msgspec.structs.replace(settings.console, people=(short,)), lambda: 0.0)
    both = Person(name="bot", role="viewer", token=Secret(TOKENS["admin"]), machine=True)
    with pytest.raises(ConfigError, match="bot and admin have the same token"):
        people.Door(msgspec.structs.replace(settings.console, people=(*only, both)), lambda: 0.0)
