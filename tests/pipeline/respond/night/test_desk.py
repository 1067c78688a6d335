"""What people say at night reaches the responders, what they named wrongly says so, and a drill takes the real way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from pipeline.config.night import Drill
from pipeline.config.tree import Config, Endpoint, Respond, Secret
from pipeline.errors import ConfigError
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import HandedOver, Settled
from pipeline.respond.night import desk as night_desk
from pipeline.respond.night.desk import Desk
from pipeline.respond.night.night import Books
from pipeline.respond.night.records import CaseSeen, DrillEnded, DrillStarted, EndpointSwitched
from schemas.incident import Incident
from tests.pipeline.respond.memory_log import MemoryPublisher, MemoryReader
from tests.pipeline.respond.night.test_cases import case_id_of, seen
from tests.pipeline.respond.night.test_night import TOPIC, World
from tests.pipeline.respond.notices import full

CONFIG = Config(respond=Respond(endpoints=(
    Endpoint(name="hook", url="https://hooks.example.com/x", secret=Secret("whsec_x")),
    Endpoint(name="pager", kind="pagerduty", secret=Secret("ROUTING-KEY")),
)))  # fmt: skip

Opened = Callable[[Config], AbstractAsyncContextManager[Desk]]


def at(world: World) -> Opened:
    """Opens desks on this world's topic."""

    @asynccontextmanager
    async def opened(config: Config) -> AsyncIterator[Desk]:
        world.log.moved = asyncio.Event()  # each desk has an event loop of its own
        decisions = Decisions(MemoryPublisher(world.log), MemoryReader(world.log, TOPIC), TOPIC, "desk")
        books = Books()
        decisions.followers.append(books.apply)
        await decisions.start()
        try:
            yield Desk(decisions, books)
        finally:
            await decisions.close()

    return opened


def with_cases(*names: str) -> World:
    world = World()
    for name in names:
        world.say(case(name, full(key_id=f"key-{name}", incident_id=name)))
    return world


def case(name: str, about: Incident) -> CaseSeen:
    return msgspec.structs.replace(seen(name), body=msgspec.json.encode(about).decode())


def cases(world: World, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert night_desk.list_cases(CONFIG, True, True, at(world)) == 0
    return {each["case_id"]: each for each in json.loads(capsys.readouterr().out)}


def test_an_acknowledgement_is_by_a_beginning_of_the_id_and_stays(capsys: pytest.CaptureFixture[str]) -> None:
    world, name = with_cases("a", "b"), case_id_of("a")
    assert night_desk.say_of_case(CONFIG, name[:10], "ack", "ada", desk=at(world)) == 0
    told = cases(world, capsys)
    assert (told[name]["state"], told[name]["by"], told[name]["waiting_s"]) == ("acknowledged", "ada", 0)
    assert told[case_id_of("b")]["state"] == "open"


def test_assigning_snoozing_and_closing_are_seen_by_the_next_who_looks(capsys: pytest.CaptureFixture[str]) -> None:
    world = with_cases("a", "b", "c")
    night_desk.say_of_case(CONFIG, case_id_of("a"), "assign", "ada", to="grace", desk=at(world))
    night_desk.say_of_case(CONFIG, case_id_of("b"), "snooze", "ada", until_us=9_000_000, desk=at(world))
    night_desk.say_of_case(CONFIG, case_id_of("c"), "close", "ada", desk=at(world))
    told = cases(world, capsys)
    assert told[case_id_of("a")]["by"] == "grace"
    assert told[case_id_of("b")]["until"] == "1970-01-01T00:00:09Z"
    assert told[case_id_of("c")]["state"] == "closed"
    night_desk.list_cases(CONFIG, False, True, at(world))
    assert case_id_of("c") not in capsys.readouterr().out


def test_a_case_that_is_not_there_or_not_one_is_said_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    world = with_cases("a", "b")
    for name in ("case_", "", "zzz"):
        assert night_desk.say_of_case(CONFIG, name, "ack", "ada", desk=at(world)) == 1
    assert "keywatch cases" in capsys.readouterr().err
    assert {each["state"] for each in cases(world, capsys).values()} == {"open"}


def test_the_table_shows_the_text_and_what_a_caller_chose_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    world.say(case("a", full(text="first \x1b[31m use", incident_id="a")))
    assert night_desk.list_cases(CONFIG, False, False, at(world)) == 0
    out = capsys.readouterr().out
    assert case_id_of("a") in out
    assert "\x1b[31m use" not in out
    assert re.search(r"opened\s+\d{4}-\d\d-\d\d \d\d:\d\dZ\s+waits \d+ min", out), "as all other lists have it"
    assert out.endswith("take one: keywatch cases ack CASE; its incidents: -o json, then keywatch explain ID\n")
    assert night_desk.list_cases(CONFIG, False, False, at(World())) == 0
    assert "no open cases" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["4d", "soon", "2020-01-01T00:00:00Z", "0m"])
def test_a_snooze_ends_within_three_days(words: str) -> None:
    with pytest.raises(ConfigError):
        night_desk.snoozed_until_us(words)
    assert night_desk.snoozed_until_us("2h") > 1_700_000_000_000_000


def with_a_dead_letter() -> World:
    world = World()
    world.say(EndpointSwitched(endpoint="hook", disabled=True, by="keywatch", why="it answered 410 Gone"))
    world.say(HandedOver(message_id="m1", endpoint="hook", partition=0, attempts=1, next_at_us=0, body="{}"))
    world.say(Settled(message_id="m1", endpoint="hook", delivered=False, why="the endpoint is disabled"))
    return world


def test_endpoints_are_listed_with_what_they_miss_and_without_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert night_desk.list_endpoints(CONFIG, True, at(with_a_dead_letter())) == 0
    out = capsys.readouterr().out
    rows = {each["name"]: each for each in json.loads(out)}
    assert (rows["hook"]["state"], rows["hook"]["why"], rows["hook"]["dead"]) == ("disabled", "it answered 410 Gone", 1)
    assert (rows["pager"]["state"], rows["pager"]["dead"]) == ("enabled", 0)
    assert "ROUTING-KEY" not in out and "whsec" not in out


def test_a_dead_letter_goes_again_only_once_its_endpoint_is_enabled(capsys: pytest.CaptureFixture[str]) -> None:
    world = with_a_dead_letter()
    with pytest.raises(ConfigError, match="enable NAME"):
        night_desk.dead_letters(CONFIG, "", "", True, "ada", False, at(world))
    assert night_desk.enable(CONFIG, "hook", "ada", at(world)) == 0
    assert night_desk.enable(CONFIG, "hook", "ada", at(world)) == 1  # it is not disabled any more
    night_desk.dead_letters(CONFIG, "", "", False, "ada", False, at(world))
    assert "m1" in capsys.readouterr().out
    assert night_desk.dead_letters(CONFIG, "pager", "", True, "ada", False, at(world)) == 0
    assert night_desk.dead_letters(CONFIG, "hook", "m", True, "ada", False, at(world)) == 0
    capsys.readouterr()
    assert night_desk.dead_letters(CONFIG, "", "", False, "ada", True, at(world)) == 0
    assert json.loads(capsys.readouterr().out) == []


DRILL = Drill(url="https://api.example.com/v1/ping", key_id="decoy", key=Secret("kd-the-decoy-itself"), limit_s=1)


@pytest.mark.parametrize("changes", [{"url": ""}, {"key_id": ""}, {"key": Secret("")}, {"key": Secret("a\nb")}])
def test_a_drill_that_cannot_be_meant_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        night_desk.check_drill(msgspec.structs.replace(DRILL, **changes))


async def test_the_decoy_goes_through_the_gateway_in_the_header_it_is_known_by() -> None:
    came: list[str] = []

    async def take(request: web.Request) -> web.Response:
        came.append(request.headers["X-Api-Key"])
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/v1/ping", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    drill = msgspec.structs.replace(
        DRILL, url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1/ping", header="X-Api-Key", allow_private=True
    )
    answers = await night_desk.abuse(night_desk.caller_of(CONFIG, drill), drill)
    await runner.cleanup()
    assert came == ["kd-the-decoy-itself"] * 3
    assert answers == ["401"] * 3


def test_a_drill_is_written_before_its_first_request_and_waits_for_the_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    order: list[str] = []

    async def abuse(caller: object, drill: Drill) -> list[str]:
        (started,) = world.records(DrillStarted)
        assert isinstance(started, DrillStarted)
        order.append("abused")
        world.say(DrillEnded(drill_id=started.drill_id, passed=bool(len(order) - 1), words="as the test says"))
        return ["200"]

    monkeypatch.setattr(night_desk, "abuse", abuse)
    config = Config(respond=Respond(drill=DRILL))
    assert night_desk.run_drill(config, "ada", True, at(world)) == 1
    out = capsys.readouterr().out
    assert "FAILED: as the test says" in out
    assert "kd-the-decoy-itself" not in out
    assert night_desk.drill_status(config, True, at(world)) == 1
    assert json.loads(capsys.readouterr().out)[0]["state"] == "failed"


def test_a_drill_over_plain_http_is_refused_beyond_this_machine() -> None:
    with pytest.raises(ConfigError, match="only https"):
        night_desk.caller_of(CONFIG, msgspec.structs.replace(DRILL, url="http://10.0.0.1/x", allow_private=True))
