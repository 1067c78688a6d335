"""A ClickHouse that takes connections and never answers: the night shift's pages come all the same, from Kafka.

Nothing here is timed: the hole stays silent and the client's own time limit is an hour, so a page that waits for an
answer never comes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest
from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter
from starlette.testclient import TestClient

from pipeline.config.tree import Config
from pipeline.console import acts, app, reach
from pipeline.console.pages import case_rows
from pipeline.console.reach import MISSES, Reach, ping_of
from pipeline.respond.night.notices import lead_of
from pipeline.respond.night.records import CaseSeen
from schemas.control import Control
from tests.console.filled import EVIL, INCIDENT, KEY, TOKENS, config
from tests.console.known import DECLARED, known
from tests.console.test_board import World
from tests.console.waiting import connected, in_memory, linked, unread

PAGE = f"/incidents/{INCIDENT.incident_id}"
SEEN = CaseSeen(
    incident_id=INCIDENT.incident_id, revision=2, key_id=KEY, severity="critical", closed=False, at_us=1,
    links=(f"key:{KEY}",), window_s=3600.0, partition=0, body=lead_of(INCIDENT),
)  # fmt: skip


@pytest.fixture
def hole() -> Iterator[str]:
    """Its address: the kernel takes connections, nobody reads them; those that wait are reset at the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as taken:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent(hole: str) -> Config:
    made = config(hole)
    return msgspec.structs.replace(made, clickhouse=msgspec.structs.replace(made.clickhouse, timeout_s=3600.0))


class Night(World):
    """A console whose topics are there, a key is declared and muted, and ClickHouse is silent."""

    def __init__(self, made: Config, stack: ExitStack) -> None:
        self.decisions = in_memory()
        self.link = linked(self.decisions)
        console = app.make_app(made, link=self.link, of_keys=known(DECLARED))
        self.browser = stack.enter_context(TestClient(console, base_url="http://127.0.0.1"))
        assert self.browser.portal is not None
        self.portal = self.browser.portal
        self.portal.call(connected, self.link)


@pytest.fixture
def night(silent: Config) -> Iterator[Night]:
    with ExitStack() as stack:
        yield Night(silent, stack)


def test_the_policy_page_has_its_switches_and_what_is_in_force(night: Night) -> None:
    night.sign_in("admin").propose()
    answer = night.browser.get("/policy")
    assert answer.status_code == 200
    for words in ('action="/switch"', 'action="/simulate"', "waits for 1 approval", "what was decided can"):
        assert words in answer.text, words
    assert "acts are stopped" in night.post("/switch", stop="yes", reason="a rehearsal").text


def test_an_incident_is_told_as_its_case_has_it_with_what_is_missing_and_what_can_be_done(night: Night) -> None:
    night.sign_in("responder")
    night.portal.call(night.decisions.write, SEEN)
    answer = night.browser.get(PAGE)
    assert answer.status_code == 503
    told = (INCIDENT.text.split(",")[0], "critical", "case_", "is open", "412 requests in 60 s", "Missing until then",
            "keywatch cases ack case_", "until 2099-01-01 00:00:00 by bea", 'action="/mute"', "active, live, read_only",
            f"keywatch respond undo {INCIDENT.incident_id}")  # fmt: skip
    for words in told:
        assert words in answer.text, words
    assert EVIL not in answer.text, "what others chose is escaped"
    assert "case_" in night.browser.get("/").text, "the list names the open cases"


def test_what_is_in_force_of_an_incident_is_undone_on_its_page(night: Night) -> None:
    night.sign_in("responder").propose()
    incident = night.act.proposal.incident_id
    page = night.browser.get(f"/incidents/{incident}").text
    assert "waits for 1 approval" in page
    assert "No case of the last days has an incident of this id" in page
    assert f'href="/keys/{night.act.proposal.key_id}"' in page
    part = night.browser.get(f"/incidents/{incident}/now")
    assert (part.status_code, "<html" in part.text, "waits for 1 approval" in part.text) == (200, False, True)
    assert "what was done can" in part.text


def test_a_key_is_told_as_the_topics_have_it_with_what_is_missing_and_what_can_be_done(night: Night) -> None:
    night.sign_in("responder").propose()
    night.portal.call(night.decisions.write, SEEN)
    answer = night.browser.get(f"/keys/{KEY}")
    assert answer.status_code == 503
    told = ("ClickHouse gives no answer", "Missing until then", "read_only", "protected: nothing acts on it", "Leaked",
            "until 2099-01-01 00:00:00 by bea", "is open", "412 requests in 60 s", 'action="/mute"',
            "It goes by what ClickHouse knows", "Nothing of this key")  # fmt: skip
    for words in told:
        assert words in answer.text, words
    assert EVIL not in answer.text, "what others chose is escaped"
    acted = night.browser.get(f"/keys/{night.act.proposal.key_id}").text
    for words in ("waits for 1 approval", "Nothing: nobody says whose key this is", "None of this key"):
        assert words in acted, words


def test_without_the_broker_either_a_keys_page_says_what_it_can_not_know(silent: Config) -> None:
    with TestClient(app.make_app(silent, of_keys=unread()), base_url="http://127.0.0.1") as browser:
        browser.post("/sign-in", data={"token": TOKENS["viewer"]})
        answer = browser.get(f"/keys/{KEY}")
    for words in ("What is declared can't be read now", "They can't be read now", "What is in force can't be read"):
        assert words in answer.text, words
    assert (answer.status_code, 'action="/mute"' in answer.text) == (503, False)


def test_a_form_that_needs_clickhouse_is_refused_and_one_that_does_not_is_taken(night: Night) -> None:
    night.sign_in("responder").propose()
    night.browser.get("/keys")  # from here on the silence is known
    answer = night.post(f"{PAGE}/judge", verdict="expected", reason="r", until="")
    assert (answer.status_code, "not done: ClickHouse gives no answer" in answer.text) == (503, True)


@pytest.mark.parametrize("page", ["/", "/keys", f"/keys/{KEY}", f"/manifest/{KEY}", "/log", "/incidents/none"])
def test_no_other_page_waits_for_it_either(night: Night, page: str) -> None:
    night.sign_in("admin")
    answer = night.browser.get(page)
    assert (answer.status_code, "ClickHouse gives no answer" in answer.text) == (503, True)


async def test_silence_is_what_several_looks_in_a_row_miss_and_ends_with_the_first_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "EVERY_S", 0.0)
    answers = [True, False, True, *[False] * MISSES, True]
    seen: list[bool] = []

    async def ping() -> bool:
        seen.append(of.silent)
        if not answers:
            await asyncio.Event().wait()
        return answers.pop(0)

    of = Reach(ping)
    following = asyncio.create_task(of.follow())
    while len(seen) < 6 + MISSES - 1:  # noqa: ASYNC110  nobody else is told of a look
        await asyncio.sleep(0)
    following.cancel()
    assert seen == [False] * (3 + MISSES) + [True, False]


async def test_a_slow_answer_of_a_server_that_speaks_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "EVERY_S", 0.0)
    asked = 0
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ping() -> bool:
        nonlocal asked
        asked += 1
        if asked == 50:
            answer.set_result("late, and good")
        return True

    of = Reach(ping)
    following = asyncio.create_task(of.follow())
    assert await of.outlasts(answer)
    following.cancel()
    assert not await of.outlasts(asyncio.get_running_loop().create_future(), patience_s=0.0)


async def test_who_is_in_a_hurry_goes_without_after_the_first_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "EVERY_S", 0.0)
    answers = [True, True, False]

    async def ping() -> bool:
        if not answers:
            await asyncio.Event().wait()
        return answers.pop(0)

    of = Reach(ping)
    following = asyncio.create_task(of.follow())
    assert not await of.outlasts(asyncio.get_running_loop().create_future(), misses=1)
    assert not of.silent
    following.cancel()


async def test_any_answer_is_one_and_a_refusal_or_a_hole_is_none(hole: str, front: str) -> None:
    assert await ping_of(front)()
    assert await ping_of("chdb:///nowhere")()
    assert not await ping_of(hole)()
    assert not await ping_of("http://127.0.0.1:1")()


def test_nothing_needs_a_thread_while_all_of_them_wait_for_a_silent_clickhouse(night: Night) -> None:
    """Neither the page with the switches nor a form, nor the line of the log; so nothing piles up behind them."""
    night.sign_in("admin").propose()
    night.browser.get("/keys")  # from here on the silence is known
    limiter = night.portal.call(_no_more_threads)
    assert night.browser.get("/policy").status_code == 200
    for page in ("/", "/keys", PAGE):
        assert night.browser.get(page).status_code == 503
    assert night.post(f"{PAGE}/judge", verdict="expected", reason="r", until="").status_code == 503
    assert "acts are stopped" in night.post("/switch", stop="yes", reason="a rehearsal").text
    assert limiter.statistics().tasks_waiting == 0


async def _no_more_threads() -> CapacityLimiter:
    limiter = current_default_thread_limiter()
    limiter.total_tokens = max(1, limiter.borrowed_tokens)
    for number in range(int(limiter.available_tokens)):
        await limiter.acquire_on_behalf_of(f"waits {number}")
    return limiter


@pytest.mark.parametrize("reset", [True, False])
async def test_a_server_that_ends_the_connection_is_not_silent(reset: bool) -> None:
    """As one does that wants a certificate: the page's own question is answered at once, by whatever."""

    async def ended(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reset:
            taken = writer.get_extra_info("socket")
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with await asyncio.start_server(ended, "127.0.0.1", 0) as server:
        assert await ping_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")()


async def test_where_the_client_goes_through_a_proxy_nothing_is_pinged_beside_it(
    hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await ping_of(hole)()


def test_cases_of_the_list_are_bounded() -> None:
    assert case_rows([]) == []


async def test_a_page_that_nobody_waits_for_any_more_leaves_nothing_behind() -> None:
    async def answers() -> bool:
        return True

    reach = Reach(answers)
    page = asyncio.create_task(reach.outlasts(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    page.cancel()
    with pytest.raises(asyncio.CancelledError):
        await page
    assert not reach._waiting


def test_a_key_of_an_open_case_is_muted_though_nobody_declares_it_and_another_is_not(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.sign_in("responder")
    stranger = msgspec.structs.replace(SEEN, incident_id="other", key_id="undeclared")
    night.portal.call(night.decisions.write, stranger)
    said: list[Control] = []

    async def say(_: Config, controls: list[Control]) -> list[int]:
        said.extend(controls)
        return list(range(len(controls)))

    monkeypatch.setattr(acts, "say", say)
    refused = night.post("/mute", key="undeclarde", until="12h", reason="load test")
    assert (refused.status_code, said) == (400, [])
    assert "whether one was used nobody can say" in refused.text
    night.post("/mute", key="undeclared", until="12h", reason="load test")
    assert len(said) == 1
