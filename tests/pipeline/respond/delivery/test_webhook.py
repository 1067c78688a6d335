"""One attempt: signed as Standard Webhooks says, and whatever the other side does is an answer, not an exception."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Secret
from pipeline.errors import ConfigError
from pipeline.respond.delivery.webhook import MAX_ANSWER_BYTES, Poster, retry_after_s
from pipeline.respond.render.standard import MAX_BODY_BYTES, incident_body
from schemas.incident import Incident, webhook_id
from tests.pipeline.respond.incidents import endpoint, finding, incident
from tests.pipeline.respond.receiver import code, receiver, said


async def test_the_receiver_verifies_the_signature_over_the_very_bytes() -> None:
    async with receiver() as target:
        body = incident_body(incident())
        answer = await Poster(endpoint(target.url), 3, 15).post(webhook_id("i1", 2), body)
    assert answer.ok
    assert target.received[0].body == body
    assert target.received[0].message_id == "msg_i1_2"
    assert target.received[0].message["type"] == "incident.opened"


async def test_a_redirect_is_a_failure_and_never_followed() -> None:
    async with receiver() as elsewhere, receiver(code(302, Location=elsewhere.url)) as target:
        answer = await Poster(endpoint(target.url), 3, 15).post("m1", b"{}")
    assert answer.outcome == "redirected"
    assert elsewhere.received == []


async def test_an_answer_that_does_not_come_in_time_is_an_error_in_words() -> None:
    async with receiver(hold=True) as target:
        answer = await Poster(endpoint(target.url), 0.2, 0.2).post("m1", b"{}")
        target.gate.set()
    assert (answer.status, answer.words) == (0, "gave no answer in time")


async def test_a_closed_port_is_an_error_in_words() -> None:
    async with receiver() as target:
        url = target.url
    answer = await Poster(endpoint(url), 1, 1).post("m1", b"{}")
    assert answer.outcome == "failed"
    assert "could not be reached" in answer.words


async def test_an_endless_answer_is_read_up_to_the_bound() -> None:
    big = said("x" * 300_000)
    async with receiver(big) as target:
        answer = await Poster(endpoint(target.url), 3, 15).post("m1", b"{}")
    assert len(answer.body) == MAX_ANSWER_BYTES


async def test_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with receiver() as target:
        assert (await Poster(endpoint(target.url), 3, 15).post("m1", b"{}")).ok


async def test_the_connection_goes_to_the_address_that_was_looked_up_under_the_name_of_the_url() -> None:
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with receiver() as target:
        poster = Poster(endpoint(f"http://hooks.example.com:{target.port}/hook"), 3, 15, look_up=look_up)
        assert (await poster.post("m1", b"{}")).ok
        assert (await poster.post("m1", b"{}")).ok
    assert target.received[0].headers["host"] == f"hooks.example.com:{target.port}"
    assert asked == ["hooks.example.com", "hooks.example.com"]  # again at each attempt


async def test_a_name_that_resolves_inside_is_refused_without_a_connection() -> None:
    async def look_up(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    public = endpoint("https://hooks.example.com/hook", allow_private=False)
    answer = await Poster(public, 3, 15, look_up=look_up).post("m1", b"{}")
    assert answer.refused_address
    assert "private" in answer.words


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "nothing", "whsec_" + "A" * 200])
def test_a_secret_that_signs_badly_is_refused_at_the_start_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as error:
        Poster(endpoint("http://127.0.0.1/x", secret=Secret(secret)), 3, 15)
    assert not secret or secret not in str(error.value).replace("whsec_ and", "")


def test_a_private_url_is_refused_at_the_start_unless_allowed() -> None:
    with pytest.raises(ConfigError, match="'keys'"):
        Poster(endpoint("http://127.0.0.1/x", allow_private=False), 3, 15)


def test_retry_after_is_a_number_or_a_date_and_nonsense_is_nothing() -> None:
    now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    later = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    values = ["120", later, "soon", "", "-5", "9" * 40]
    assert [retry_after_s({"Retry-After": value}, now) for value in values] == [120, 90, 0, 0, 0, 86_400]


@settings(max_examples=30)
@given(count=st.integers(0, 60), text=st.sampled_from(["", "x" * 200, "ü" * 2000]))
def test_a_message_is_below_the_limit_whatever_the_incident_holds(count: int, text: str) -> None:
    findings = tuple(msgspec.structs.replace(finding("network", bits=i), text=text) for i in range(count))
    body = incident_body(incident(findings=findings))
    assert len(body) < MAX_BODY_BYTES
    data = msgspec.json.decode(body)["data"]
    kept = [each["bits"] for each in data["findings"]]
    assert len(kept) == count or "trimmed" in data
    assert not kept or max(kept) == count - 1  # the strongest stay


def test_an_incident_that_fits_goes_out_whole() -> None:
    data = msgspec.json.decode(incident_body(incident()))["data"]
    assert msgspec.convert(data, Incident) == incident()


async def test_the_timestamp_is_that_of_the_attempt_and_the_id_that_of_the_message() -> None:
    base = datetime.now(UTC)
    times = iter([base] * 2 + [base + timedelta(seconds=60)] * 2)
    async with receiver(code(503)) as target:
        poster = Poster(endpoint(target.url), 3, 15, clock=lambda: next(times))
        await poster.post("m1", b"{}")
        await asyncio.sleep(0)
        await poster.post("m1", b"{}")
    first, second = target.received
    assert first.message_id == second.message_id
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60
