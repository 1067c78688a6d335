"""What feeds and people report as public finds its key, is told once, and never leaves a secret behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pipeline import log as logs
from pipeline.asking.investigating import print_hash, print_leak, print_leaks, report_leak
from pipeline.config.tree import ClickHouse, Config, Secret, Topics
from pipeline.config.tree import Intake as IntakeConfig
from pipeline.config.tree import Leaks as LeaksConfig
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.intake import leaks as intake_leaks
from pipeline.intake.leaks import ASK_AGAIN_S, KEYS_S, PATH, FeedKeys, LeakIntake, reader_of
from pipeline.keys import leaks
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.key_import import diff
from pipeline.keys.leaks import Matcher, place
from pipeline.metrics import METRICS, render
from pipeline.ports import Columns
from pipeline.secrets import key_id_of_secret
from pipeline.sinks.clickhouse import ClickHouseSink
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.intake.test_run import Broker
from tests.pipeline.key_rows import DAY_US, HOUR_US, NOON_US, Use, daily, fill

TOPICS = Topics()
PEPPER = "a-pepper-of-the-tests"
TOKEN = "kw_live_" + "Zq7rT2mX9Kd4LsVb8NcHf3JgYp6RaEt0"
SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()
OTHER = "kw_live_" + "0000000000000000000000000000000A"
URL = "https://github.com/octocat/Hello-World/blob/12345600b9cbe38a219f39a9941c9319b600c002/foo/bar.env"
SIGNER = ec.generate_private_key(ec.SECP256R1())
CONFIG = Config(
    intake=IntakeConfig(pepper=Secret(PEPPER)), leaks=LeaksConfig(enabled=True, token=Secret("of-the-admin"))
)
PAYMENTS = Key(
    key_id="payments", owner="acme", environment="live", version=4, secret_hash=key_id_of_secret(TOKEN, PEPPER)
)


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def document(**keys: ec.EllipticCurvePrivateKey) -> bytes:
    entries = [{"key_identifier": name, "key": pem(key), "is_current": True} for name, key in keys.items()]
    return json.dumps({"public_keys": entries}).encode()


def body(*tokens: str, url: str = URL) -> bytes:
    return json.dumps([{"token": t, "type": "keywatch_key", "url": url, "source": "commit"} for t in tokens]).encode()


def headers(raw: bytes, key: ec.EllipticCurvePrivateKey = SIGNER, name: str = "one") -> dict[str, str]:
    signature = base64.b64encode(key.sign(raw, ec.ECDSA(hashes.SHA256()))).decode()
    return {"Github-Public-Key-Identifier": name, "Github-Public-Key-Signature": signature}


@dataclass
class World:
    """Topics, tables and catalogue in memory: what is published to the keys topic is declared from then on."""

    catalogue: Catalogue = field(default_factory=lambda: Catalogue.of([PAYMENTS]))
    broker: Broker = field(default_factory=Broker)
    tables: list[tuple[str, Columns]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    documents: int = 0

    async def write(self, table: str, rows: Columns) -> None:
        self.tables.append((table, rows))

    async def close(self) -> None:
        pass

    async def declared(self) -> Catalogue:
        keys = [msgspec.json.decode(value, type=Key) for _, value in self.broker.of(TOPICS.keys)]
        if keys and self.catalogue.get(keys[-1].key_id) != keys[-1]:
            self.catalogue = self.catalogue.changed({key.key_id: key for key in keys})
        return self.catalogue

    async def ever_used(self, ids: list[str]) -> list[str]:
        return [each for each in ids if each in self.used]

    async def public_keys(self) -> bytes:
        self.documents += 1
        return document(one=SIGNER, p384=ec.generate_private_key(ec.SECP384R1()))

    def incidents(self) -> list[Incident]:
        return [msgspec.json.decode(value, type=Incident) for _, value in self.broker.of(TOPICS.incidents)]


@asynccontextmanager
async def listening(world: World, config: Config = CONFIG) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    endpoint = LeakIntake(config, FeedKeys(world.public_keys), world.broker, world, world.declared, world.ever_used)
    app = web.Application()
    app.router.add_post(PATH, endpoint.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    finally:
        await runner.cleanup()


async def test_a_signed_report_finds_its_key_and_is_told_as_a_proof() -> None:
    world, raw = World(), body(TOKEN)
    async with listening(world) as (session, url):
        answer = await session.post(url, data=raw, headers=headers(raw))
        assert answer.status == 200
        assert await answer.json() == [{"token_hash": SHA256, "token_type": "keywatch_key", "label": "true_positive"}]
    (incident,) = world.incidents()
    assert (incident.key_id, incident.owner) == ("payments", "acme")
    assert (incident.rule, incident.severity) == ("leak", "critical")
    assert (incident.key_version, incident.environment, incident.rung) == (4, "live", "revoke")
    assert incident.findings[0].proof and incident.findings[0].authenticated and URL in incident.text
    (declared,) = [msgspec.json.decode(value, type=Key) for _, value in world.broker.of(TOPICS.keys)]
    assert declared == msgspec.structs.replace(PAYMENTS, leaked_at=incident.opened_at, leak_shown=True)
    assert [topic for topic, *_ in world.broker.records] == [TOPICS.incidents, TOPICS.keys]
    assert [table for table, _ in world.tables] == ["incidents", "findings", "leaks"]


async def test_a_repeat_of_a_batch_changes_nothing_and_a_second_place_is_a_row_only() -> None:
    world, raw, elsewhere = World(), body(TOKEN, TOKEN), body(TOKEN, url="https://example.org/paste")
    async with listening(world) as (session, url):
        answers = [await (await session.post(url, data=raw, headers=headers(raw))).json() for _ in range(3)]
        await session.post(url, data=elsewhere, headers=headers(elsewhere))
    assert answers[0] == answers[1] == answers[2]
    assert len(world.incidents()) == 1
    ids = [rows["leak_id"] for table, rows in world.tables if table == "leaks"]
    assert len({each for some in ids for each in some}) == 2
    assert ids[0] == ids[1] == ids[2]


async def test_what_was_told_before_a_crash_is_told_again_under_the_same_id() -> None:
    world, raw = World(), body(TOKEN)
    async with listening(world) as (session, url):
        await session.post(url, data=raw, headers=headers(raw))
        world.broker.records = [each for each in world.broker.records if each[0] == TOPICS.incidents]
        world.catalogue = Catalogue.of([PAYMENTS])  # the crash came before the catalogue was written
        await session.post(url, data=raw, headers=headers(raw))
    one, two = world.incidents()
    assert (one.incident_id, one.revision) == (two.incident_id, two.revision)


async def test_what_is_not_signed_by_the_feed_is_refused_and_changes_nothing() -> None:
    world, raw = World(), body(TOKEN)
    good, stranger = headers(raw), ec.generate_private_key(ec.SECP256R1())
    curve, name = ec.generate_private_key(ec.SECP384R1()), "Github-Public-Key-Signature"
    async with listening(world) as (session, url):
        for data, sent in (
            (raw + b" ", good), (raw.replace(b"commit", b"Commit"), good), (raw, headers(raw, stranger)),
            (raw, headers(raw, name="unknown")), (raw, headers(raw, curve, "p384")), (raw, {}),
            (raw, good | {name: "no base64"}), (raw, good | {name: ""}),
            (raw, {"Authorization": "Bearer "}), (raw, {"Authorization": "Bearer wrong"}),
            (raw, {"Github-Public-Key-Identifier": "one", "Authorization": "Bearer of-the-admin"}),
        ):  # fmt: skip
            assert (await session.post(url, data=data, headers=sent)).status == 401
    assert world.broker.records == [] and world.tables == []


async def test_without_a_token_of_our_own_no_token_is_right() -> None:
    config = msgspec.structs.replace(CONFIG, leaks=LeaksConfig(enabled=True))
    async with listening(World(), config) as (session, url):
        for sent in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
            assert (await session.post(url, json={"key_id": "payments"}, headers=sent)).status == 401


@pytest.mark.parametrize(
    ("catalogue", "label"),
    [
        ([PAYMENTS], "false_positive"),
        ([PAYMENTS, Key(key_id="unhashed")], None),
        ([PAYMENTS, Key(key_id="old", status="revoked")], "false_positive"),
        ([], None),
    ],
)
async def test_false_positive_is_only_said_where_every_key_could_have_been_found(
    catalogue: list[Key], label: str | None
) -> None:
    world, raw = World(Catalogue.of(catalogue)), body(OTHER)
    async with listening(world) as (session, url):
        answer = await (await session.post(url, data=raw, headers=headers(raw))).json()
    assert [each["label"] for each in answer] == ([label] if label else [])
    assert world.broker.records == []
    assert [rows["outcome"] for table, rows in world.tables if table == "leaks"] == [["unmatched"]]


async def test_a_key_whose_id_is_its_hash_is_found_undeclared_once_it_was_used() -> None:
    ident = key_id_of_secret(OTHER, PEPPER)
    world, raw = World(used=[ident]), body(OTHER)
    async with listening(world) as (session, url):
        assert (await session.post(url, data=raw, headers=headers(raw))).status == 200
    (declared,) = [msgspec.json.decode(value, type=Key) for _, value in world.broker.of(TOPICS.keys)]
    assert (declared.key_id, declared.protected, bool(declared.leaked_at)) == (ident, True, True)


async def test_a_person_reports_by_id_or_hash_and_it_is_hearsay() -> None:
    sent = {"Authorization": "Bearer of-the-admin"}
    world = World()
    async with listening(world) as (session, url):
        for said, status in (
            ({"key_id": "payments", "url": URL, "reason": "in a chat"}, 200), ({"hash": PAYMENTS.secret_hash}, 200),
            ({"key_id": "payments", "hash": PAYMENTS.secret_hash}, 400), ({}, 400), ({"hash": TOKEN}, 400),
            ({"key_id": TOKEN}, 400), ({"key_id": "x", "reason": TOKEN}, 400), ({"key_id": "x", "more": 1}, 400),
            ([], 400),
        ):  # fmt: skip
            answer = await session.post(url, json=said, headers=sent)
            assert answer.status == status, said
            assert TOKEN not in await answer.text()
    (incident,) = world.incidents()
    assert not incident.findings[0].authenticated and incident.findings[0].proof


async def test_hearsay_does_not_stand_in_the_way_of_the_proof_that_follows() -> None:
    world, raw = World(), body(TOKEN)
    async with listening(world) as (session, url):
        said = {"key_id": "payments", "reason": "in a chat"}
        assert (await session.post(url, json=said, headers={"Authorization": "Bearer of-the-admin"})).status == 200
        assert (await session.post(url, data=raw, headers=headers(raw))).status == 200
        assert (await session.post(url, data=raw, headers=headers(raw))).status == 200
    heard, shown = world.incidents()
    assert heard.incident_id != shown.incident_id
    assert not heard.findings[0].authenticated
    assert shown.findings[0].authenticated
    declared = [msgspec.json.decode(value, type=Key) for _, value in world.broker.of(TOPICS.keys)]
    assert [each.leak_shown for each in declared] == [False, True]
    assert declared[0].leaked_at == declared[1].leaked_at


async def test_while_the_broker_is_away_the_feed_is_told_to_come_again() -> None:
    world, raw = World(broker=Broker(failures=1)), body(TOKEN)
    async with listening(world) as (session, url):
        statuses = [(await session.post(url, data=raw, headers=headers(raw))).status for _ in range(2)]
    assert statuses == [503, 200]
    assert len(world.incidents()) == 1


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'[{"type":"x"}]', b'[{"token":""}]', b"\xff", b"[" * 5000])
async def test_rubbish_that_is_signed_is_no_report(raw: bytes) -> None:
    world = World()
    async with listening(world) as (session, url):
        answer = await session.post(url, data=raw, headers=headers(raw))
        assert answer.status == 400
        assert "array" in await answer.text()
    assert world.tables == []


async def test_the_secret_is_in_nothing_that_is_written_answered_or_logged() -> None:
    out, root = io.StringIO(), logging.getLogger()
    level, factory = root.level, logging.getLogRecordFactory()
    handler = logs.set_up("DEBUG", stream=out)
    world = World(broker=Broker(failures=1))
    answered = ""
    hostile = body(TOKEN, OTHER, url=f"https://user:{TOKEN}@h.example/{TOKEN}/x?t={TOKEN}#{TOKEN}")
    named = json.dumps([{"token": TOKEN, "type": TOKEN, "source": TOKEN, "url": f"https://{TOKEN}.example/"}]).encode()
    try:
        async with listening(world) as (session, url):
            for raw in (hostile, hostile, named, hostile + b"x", b'[{"token":"' + TOKEN.encode() + b'"},{]'):
                answered += await (await session.post(url, data=raw, headers=headers(raw))).text()
            answered += await (await session.post(url, data=hostile)).text()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.setLogRecordFactory(factory)
    written = repr(world.broker.records) + repr(world.tables) + answered + out.getvalue() + render().decode()
    assert "h.example" in written and "payments" in written  # it was taken
    assert TOKEN not in written and OTHER not in written
    assert TOKEN[8:] not in written


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (URL + "#L3-L4", URL + "#L3-L4"), (URL + "#L3?x", URL), ("https://a:b@h.example/x?y=1", "https://h.example/x"),
        ("javascript:alert(1)", ""), ("file:///etc/passwd", ""), ("", ""), ("https://h.example", "https://h.example"),
    ],
)  # fmt: skip
def test_a_place_is_kept_without_what_may_hold_a_secret(url: str, kept: str) -> None:
    assert place(url, TOKEN) == kept


@given(st.text(max_size=80), st.integers(0, 3))
def test_no_place_keeps_the_secret(text: str, at: int) -> None:
    parts = ["https://h.example/", text, TOKEN, text]
    parts.insert(at, TOKEN)
    assert TOKEN not in place("".join(parts), TOKEN)


async def test_public_keys_are_kept_for_an_hour_and_unknown_ones_ask_once_a_minute() -> None:
    now, reads, fails = [0.0], [0], [False]

    async def read() -> bytes:
        reads[0] += 1
        if fails[0]:
            raise OSError("away")
        return document(one=SIGNER)

    keys = FeedKeys(read, lambda: now[0])
    assert await keys.get("one") is not None
    assert [await keys.get("two") for _ in range(5)] == [None] * 5
    assert reads[0] == 1
    now[0] += ASK_AGAIN_S
    assert await keys.get("two") is None and reads[0] == 2
    now[0] += KEYS_S
    fails[0] = True
    assert await keys.get("one") is not None  # the old ones go on
    assert reads[0] == 3
    with pytest.raises(Retry):
        await FeedKeys(read, lambda: now[0]).get("one")


def test_public_keys_come_from_a_file_or_by_https_only() -> None:
    with pytest.raises(ConfigError, match="https://"):
        reader_of(Config(leaks=LeaksConfig(public_keys_url="http://api.example/keys")))


def test_an_import_does_not_take_back_that_a_key_is_public_unless_it_was_made_anew() -> None:
    leaked = msgspec.structs.replace(PAYMENTS, leaked_at="2026-09-21T00:00:00Z")
    plain = msgspec.structs.replace(PAYMENTS, secret_hash="", owner="new")
    ((_, after),) = diff([leaked], [plain]).changed
    assert (after.leaked_at, after.secret_hash, after.owner) == (leaked.leaked_at, leaked.secret_hash, "new")
    ((_, after),) = diff([leaked], [msgspec.structs.replace(plain, version=5)]).changed
    assert after.leaked_at == ""


@pytest.fixture
def told(clickhouse: ClickHouse) -> Iterator[ClickHouse]:
    """Three leaked keys: one that a stranger used, one that only its owner did, one that nobody did."""
    uses = [*daily("stolen", range(20)), *daily("own", range(20)), *daily("idle", range(10, 20))]
    thief = {"ip": "203.0.113.9", "asn": 64_666, "country": "RO", "client": "sqlmap", "route": "/v1/admin"}
    fill(clickhouse, [*uses, Use("stolen", NOON_US - 12 * HOUR_US, times=3, **thief)])  # type: ignore[arg-type]

    async def tell() -> None:
        sink, broker = ClickHouseSink(clickhouse), Broker()
        keys = [Key(key_id=name, secret_hash=key_id_of_secret(name, PEPPER)) for name in ("stolen", "own", "idle")]
        matcher = Matcher(Catalogue.of(keys))
        reports = [leaks.report_of(name, PEPPER, "k", URL, "commit") for name in ("stolen", "own", "idle", "foreign")]
        for at_us in (NOON_US - DAY_US, NOON_US):  # again, as after a crash
            await leaks.tell(Matcher(Catalogue.empty()).match(reports[:1]), at_us - HOUR_US, TOPICS, broker, sink)
            await leaks.tell(matcher.match(reports), at_us, TOPICS, broker, sink)
        await sink.close()

    asyncio.run(tell())
    yield clickhouse


def test_who_used_a_leaked_key_since_is_answered(told: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    config = Config(clickhouse=told)
    assert print_leaks(config, "json") == 0
    rows = {row["key_id"]: row for row in json.loads(capsysbinary.readouterr().out)}
    assert set(rows) == {"stolen", "own", "idle", ""}
    assert {row["at_us"] for row in rows.values()} == {NOON_US - DAY_US}  # the first report stays; a match beats a miss

    def shown(key: str) -> dict[str, Any]:
        assert print_leak(config, rows[key]["leak_id"][:10], "json") == 0
        answer: dict[str, Any] = json.loads(capsysbinary.readouterr().out)
        return answer

    stolen = shown("stolen")
    assert "a stranger HAS used it: 3 requests (3 succeeded) from 1 new sources, on 1 routes" in stolen["answer"]
    assert [route["route"] for route in stolen["case"]["routes"]] == ["/v1/admin"]
    assert shown("own")["answer"].startswith("no stranger has used it: 3 requests")
    assert shown("idle")["answer"].startswith("nobody has used the key")
    assert shown("")["answer"].startswith("it matches no key")
    assert print_leak(config, rows["stolen"]["leak_id"], "table") == 0
    assert "AS64666" in capsysbinary.readouterr().out.decode()
    assert print_leak(config, "zz", "table") == 1


async def test_the_command_reports_to_the_intake(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    async with listening(world) as (_, url):
        config = msgspec.structs.replace(CONFIG, leaks=msgspec.structs.replace(CONFIG.leaks, url=url))
        assert await asyncio.to_thread(report_leak, config, "payments", "", URL, "seen") == 0
        assert "payments is known as leaked" in capsys.readouterr().out
        assert await asyncio.to_thread(report_leak, config, "", "hmac_" + "0" * 32, "", "seen") == 1
        assert "matches no key" in capsys.readouterr().out
        wrong = msgspec.structs.replace(config, leaks=msgspec.structs.replace(config.leaks, token=Secret("wrong")))
        with pytest.raises(Fatal, match="401"):
            await asyncio.to_thread(report_leak, wrong, "payments", "", "", "seen")
    with pytest.raises(Retry, match="does not answer"):
        await asyncio.to_thread(report_leak, config, "payments", "", "", "seen")
    with pytest.raises(ConfigError, match="either"):
        report_leak(config, "payments", "hmac_" + "0" * 32, "", "seen")


def test_a_hash_is_made_of_stdin_and_needs_the_pepper(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN + "\n"))
    assert print_hash(CONFIG) == 0
    assert capsys.readouterr().out.strip() == PAYMENTS.secret_hash
    with pytest.raises(ConfigError, match="pepper"):
        print_hash(Config())


def test_deliveries_are_counted_from_zero() -> None:
    text = render().decode()
    for outcome in ("ok", "refused", "invalid", "failed"):
        assert f'keywatch_leak_deliveries_total{{outcome="{outcome}"}}' in text
    assert METRICS.leak_feed_timestamp._value.get() > 0  # signed ones were taken above


async def test_bodies_that_come_slowly_are_few_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send one: their number bounds the memory, and each has its time."""
    monkeypatch.setattr(intake_leaks, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(intake_leaks, "BODY_S", 0.5)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    world, raw = World(), body(TOKEN)
    async with listening(world) as (session, url):
        slow = asyncio.create_task(session.post(url, data=slowly(), headers=headers(raw)))
        statuses = {401}
        while 503 not in statuses:  # until the slow one has come
            statuses.add((await session.post(url, data=b"[]")).status)
        assert (await slow).status == 408
        assert (await session.post(url, data=raw, headers=headers(raw))).status == 200
