"""Each kind of endpoint gets its secret at the last moment, and nothing that waits on a topic has one."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from pipeline.config.file import show
from pipeline.config.night import USUAL, check
from pipeline.config.tree import Config, Endpoint, Respond, Secret
from pipeline.errors import ConfigError
from pipeline.respond.delivery.channel import channel
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.delivery.webhook import Poster
from pipeline.respond.ledger.entries import encode
from pipeline.respond.render import RENDERINGS
from tests.pipeline.respond.channels import respond
from tests.pipeline.respond.incidents import SECRET, endpoint
from tests.pipeline.respond.notices import ALL, notice
from tests.pipeline.respond.receiver import receiver

OLD = "whsec_" + base64.b64encode(b"an older secret of some 32 bytes").decode()
TOKEN = "R0UTINGKEYROUTINGKEYROUTINGKEY12"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[tuple[Mapping[str, str], Any]]]]:
    """A receiver that only listens: its URL and what came."""
    came: list[tuple[Mapping[str, str], Any]] = []

    async def take(request: web.Request) -> web.Response:
        came.append((dict(request.headers), msgspec.json.decode(await request.read())))
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/in", came
    finally:
        await runner.cleanup()


async def test_pagerduty_s_routing_key_goes_in_at_the_attempt_and_not_before() -> None:
    rendered = RENDERINGS["pagerduty"].body(notice("case.opened"))
    assert TOKEN not in rendered.decode()
    async with listening() as (url, came):
        post = channel(respond(), endpoint(url, kind="pagerduty", secret=Secret(TOKEN)))
        assert (await post.post("m", rendered)).ok
    assert came[0][1]["routing_key"] == TOKEN
    assert came[0][1]["event_action"] == "trigger"


async def test_slack_s_url_is_the_secret_and_is_shown_nowhere() -> None:
    async with listening() as (url, came):
        target = Endpoint(name="slack", kind="slack", secret_url=Secret(url), allow_private=True)
        assert (await channel(respond(), target).post("m", RENDERINGS["slack"].body(notice("case.opened")))).ok
    assert url not in repr(target)
    assert came[0][1]["blocks"]
    assert "Authorization" not in came[0][0]


async def test_a_token_is_a_bearer_s_and_a_signing_secret_signs() -> None:
    async with listening() as (url, came):
        for secret in ("token-1", SECRET):
            post = channel(respond(), endpoint(url, kind="cloudevents", secret=Secret(secret)))
            assert (await post.post("m1", RENDERINGS["cloudevents"].body(notice()))).ok
    bearer, signed = (headers for headers, _ in came)
    assert bearer["Authorization"] == "Bearer token-1"
    assert "Authorization" not in signed and signed["webhook-signature"].startswith("v1,")
    assert {each["Content-Type"] for each in (bearer, signed)} == {"application/cloudevents+json; charset=UTF-8"}


async def test_while_a_secret_is_changed_both_sign_and_the_old_one_ends_by_itself() -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    both = endpoint("http://127.0.0.1/", old_secret=Secret(OLD), old_secret_until=until.isoformat())
    late = until + timedelta(seconds=1)
    async with receiver() as target:
        both = msgspec.structs.replace(both, url=target.url)
        await Poster(both, 3, 15).post("m1", b"{}")
    headers = dict(target.received[0].headers)
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OLD):
        Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(b"{}", headers)
    assert len(Poster(both, 3, 15, clock=lambda: late)._signed("m2", b"{}")["webhook-signature"].split()) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "webhook", "secret": Secret("")}, "secret is needed"),
        ({"kind": "pagerduty", "secret": Secret("")}, "routing key"),
        ({"kind": "email", "url": "smtp://m.example.com"}, "sender is needed"),
        ({"kind": "slack", "url": ""}, "secret_url"),
        ({"kind": "ocsf", "url": ""}, "url is needed"),
        ({"events": ("incident.opend",)}, "unknown event incident.opend"),
        ({"old_secret": Secret(OLD)}, "go together"),
        ({"old_secret": Secret(OLD), "old_secret_until": "soon"}, "RFC 3339"),
    ],
)
def test_an_endpoint_that_lacks_what_its_kind_needs_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(endpoint(**({"url": "https://hooks.example.com/x"} | changes)))


def test_pagerduty_needs_no_url_and_people_get_cases_while_machines_get_incidents() -> None:
    check(Endpoint(name="pd", kind="pagerduty", secret=Secret(TOKEN)))
    assert Endpoint(name="pd", kind="pagerduty").target.startswith("https://events.pagerduty.com/")
    for kind, wanted in USUAL.items():
        people = kind in ("pagerduty", "slack", "email")
        assert ("case.opened" in wanted) == people
        assert ("incident.opened" in wanted) != people
        assert {"protection.lost", "response.done", "response.failed", "response.waiting"} <= set(wanted)
        assert ("response.unproven" in wanted) == (kind != "pagerduty")  # nobody is got up for silence
        assert ("response.broken" in wanted) != people  # they get it as their case


def test_the_table_of_what_is_told_to_whom_is_what_is_told() -> None:
    page = (Path(__file__).parents[4] / "deploy" / "docs" / "responding.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if re.match(r"\| (events|`[a-z]+\.[a-z]+`)", line)]
    kinds = [name.strip().split(", ") for name in rows[0][1:]]
    told: dict[str, set[str]] = {kind: set() for kind in USUAL}
    for events, *marks in rows[1:]:
        for kind in [kind for names, mark in zip(kinds, marks, strict=True) if mark.strip() == "yes" for kind in names]:
            told[kind] |= set(re.findall(r"`([^`]+)`", events))
    assert told == {kind: set(usual) for kind, usual in USUAL.items()}


def test_an_endpoint_of_acts_alone_is_told_nothing_and_the_usual_can_be_added_to() -> None:
    assert Endpoint(name="keys", events=()).wanted == frozenset()
    more = Endpoint(name="keys", events=("usual", "incident.extended")).wanted
    assert more == frozenset({*USUAL["webhook"], "incident.extended"})


@pytest.mark.parametrize("kind", ["pagerduty", "ocsf", "cloudevents", "alertmanager", "slack"])
def test_a_private_target_is_refused_at_the_start_for_every_kind(kind: str) -> None:
    target = endpoint("http://169.254.169.254/latest", kind=kind, allow_private=False, secret=Secret("t"))
    with pytest.raises(ConfigError, match="'keys'"):
        channel(respond(), target)


CANARY = "S3CRETCANARY"


def with_canaries() -> list[Endpoint]:
    """One endpoint of each kind whose every secret holds the canary; nobody listens at any."""
    closed = f"http://127.0.0.1:9/{CANARY}"
    whsec = "whsec_" + base64.b64encode(f"{CANARY} and more than 24".encode()).decode()
    mail = {"url": "smtp://127.0.0.1:9", "sender": "k@example.com", "recipients": ("n@example.com",), "username": "kw"}
    every: list[dict[str, Any]] = [
        {"kind": "webhook", "url": "http://127.0.0.1:9/", "secret": Secret(whsec)},
        *({"kind": kind, "url": "http://127.0.0.1:9/", "secret": Secret(CANARY)} for kind in
          ("cloudevents", "ocsf", "alertmanager", "pagerduty")),
        {"kind": "slack", "secret_url": Secret(closed)},
        {"kind": "email", "secret": Secret(CANARY), **mail},
    ]  # fmt: skip
    return [Endpoint(name=each["kind"], allow_private=True, events=ALL, **each) for each in every]


async def test_no_secret_of_an_endpoint_is_in_anything_that_is_logged_written_or_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    written: list[bytes] = []

    async def journal(record: Any) -> None:
        written.append(encode(record))

    endpoints = with_canaries()
    config = Respond(endpoints=tuple(endpoints), connect_timeout_s=1, total_timeout_s=2)
    boxes = [Mailbox(channel(config, each), journal, time.time, (0.0, 3600.0)) for each in endpoints]
    for box in boxes:
        box.start()
    for released in [await box.take(notice("case.opened"), 0) for box in boxes]:
        async with asyncio.timeout(20):
            await released.wait()
    for box in boxes:
        await box.close()
    assert len(written) == len(endpoints)
    everything = b"\n".join(written).decode() + caplog.text + repr(config) + show(Config(respond=config))
    encoded = base64.b64encode(f"{CANARY} and more than 24".encode()).decode()
    assert CANARY not in everything and encoded not in everything
    assert "could not be reached" in caplog.text
