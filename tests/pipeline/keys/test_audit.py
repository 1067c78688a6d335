"""Every fault that was planted is found, with its reason; what is in order is not named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.asking import keys as asking_keys
from pipeline.asking.keys import print_audit
from pipeline.config.tree import ClickHouse, Config, KeyLife
from pipeline.errors import ConfigError
from pipeline.keys.audit import Fault, Seen, audit, failing, look
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.departures import departures
from pipeline.keys.scopes import needed, words_of
from pipeline.sinks.connect import connect
from schemas.key import Key
from schemas.key_event import KeyEvent
from tests.pipeline.key_rows import DAY_US, NOON_US, daily, fill

YOUNG = "2026-06-01T00:00:00Z"
FINE: dict[str, Any] = {
    "created_at": YOUNG,
    "owner": "acme",
    "environment": "live",
    "allowed_networks": ("198.51.100.0/24",),
}
LEFT = KeyEvent(key_id="handed", ts_us=NOON_US - 5 * DAY_US, kind="owner_departed", owner="bob")
CATALOGUE = Catalogue.of(
    [
        Key(key_id="fine", **FINE),
        Key(key_id="leaked", **FINE, leaked_at="2026-09-20T00:00:00Z"),
        Key(key_id="revoked", **FINE | {"created_at": "2020-01-01T00:00:00Z"}, status="revoked"),
        Key(key_id="decoy", **FINE | {"created_at": "2020-01-01T00:00:00Z"}, decoy=True),
        Key(key_id="never", **FINE),
        Key(key_id="new", **FINE | {"created_at": "2026-09-15T00:00:00Z"}),
        Key(key_id="idle", **FINE),
        Key(key_id="aged", **FINE | {"created_at": "2025-06-01T00:00:00Z"}),
        Key(key_id="ancient", **FINE | {"created_at": "2020-06-01T00:00:00Z"}),
        Key(key_id="rotated", **FINE | {"created_at": "2020-06-01T00:00:00Z"}, last_rotated_at=YOUNG),
        Key(key_id="test", **FINE | {"environment": "test"}),
        Key(key_id="logged", **FINE, scopes=("orders:read", "orders:write")),
        Key(key_id="named", **FINE, scopes=("orders:read", "orders:write", "billing", "secrets:read")),
        Key(key_id="reader", **FINE, role="full"),
        Key(key_id="open", **FINE | {"allowed_networks": ()}),
        Key(key_id="moving", **FINE | {"allowed_networks": ()}),
        Key(key_id="handed", **FINE | {"owner": "carol"}),
        Key(key_id="orphan", **FINE | {"owner": "bob"}),
    ]
)
USES = [
    *(use for key in ("fine", "leaked", "aged", "ancient", "rotated", "revoked", "open", "handed")
      for use in daily(key, range(10))),
    *daily("idle", [120]),
    *daily("orphan", [1]),
    *daily("test", range(3), times=4), *daily("test", range(3), environment="test"),
    *daily("logged", range(10), times=20, scope="orders:read"),
    *daily("named", range(10), times=20), *daily("named", [3], method="POST", route="/v1/secrets", outcome="denied"),
    *daily("reader", range(10), times=20),
    *daily("moving", range(10)), *daily("moving", [2], ip="203.0.113.5", asn=64_501),
    *daily("nobody", range(4)), *daily("forgotten", [200]),
]  # fmt: skip


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    fill(database, USES)
    return database


@pytest.fixture(scope="module")
def seen(filled: ClickHouse) -> Seen:
    client = connect(filled, filled.database)
    found = look(client, CATALOGUE)
    client.close()
    return found


@pytest.fixture(scope="module")
def faults(seen: Seen) -> list[Fault]:
    return audit(seen, CATALOGUE, {"handed": LEFT}, KeyLife())


def test_exactly_the_planted_faults_are_found(faults: list[Fault]) -> None:
    assert {(fault.key_id, fault.check) for fault in faults} == {
        ("leaked", "leaked"), ("never", "never_used"), ("idle", "unused"), ("aged", "over_age"),
        ("ancient", "over_age"),
        ("test", "test_on_live"), ("logged", "over_privileged"), ("named", "over_privileged"),
        ("reader", "over_privileged"), ("open", "no_allow_list"), ("orphan", "departed"), ("nobody", "undeclared"),
    }  # fmt: skip


def test_the_worst_stand_first_and_each_says_why_and_what_to_do(faults: list[Fault]) -> None:
    grades = [fault.grade for fault in faults]
    order = ["critical", "high", "medium", "low"]
    assert grades == sorted(grades, key=order.index)
    assert (faults[0].key_id, faults[0].grade) == ("leaked", "critical")
    assert all(fault.reason and fault.todo for fault in faults)
    by_key = {fault.key_id: fault for fault in faults}
    assert "2,303 days" in by_key["ancient"].reason and by_key["ancient"].grade == "high"
    assert by_key["aged"].grade == "medium"
    assert "12 live requests" in by_key["test"].reason
    assert "198.51.100.0/24" in by_key["open"].reason and "on 10 days" in by_key["open"].reason
    assert "used since" in by_key["orphan"].reason and "told of handed" in by_key["orphan"].reason


def test_scopes_are_judged_by_what_the_gateway_logs_else_by_routes_and_methods(faults: list[Fault]) -> None:
    reasons = {fault.key_id: fault.reason for fault in faults}
    assert "orders:write (by the scopes that the gateway logs)" in reasons["logged"]
    assert "orders:write, secrets:read (by its routes and methods)" in reasons["named"]  # refused ones need no scope
    assert "billing" not in reasons["named"]  # no route of anybody names it: nobody knows


@pytest.mark.parametrize(
    ("scope", "answer"),
    [
        ("orders:read", True), ("read_orders", True), ("order.list", True), ("orders", True), ("read", True),
        ("orders:write", False), ("WriteOrders", False), ("users:read", False), ("delete", False), ("admin", True),
        ("billing:read", None), ("", None), ("v1", None),
    ],
)  # fmt: skip
def test_a_scopes_name_tells_whether_it_was_needed(scope: str, answer: bool | None) -> None:
    words = words_of("/v1/orders/{id}") | words_of("/v1/Users")
    assert needed(scope, [("GET", "/v1/orders/{id}")], words) is answer


def test_an_owner_who_left_taints_what_is_still_declared_his(seen: Seen) -> None:
    kept = CATALOGUE.changed({"orphan": Key(key_id="orphan", **FINE)})
    assert not [fault for fault in audit(seen, kept, {"handed": LEFT}, KeyLife()) if fault.check == "departed"]


def test_departures_are_the_newest_of_each_key_and_rubbish_is_passed_over() -> None:
    import msgspec

    events = [
        msgspec.structs.replace(LEFT, ts_us=LEFT.ts_us + 1),
        LEFT,
        KeyEvent(key_id="owner_departed", ts_us=NOON_US, kind="used"),
    ]
    values = [*map(msgspec.json.encode, events), b'{"kind":"owner_departed"', b""]
    assert departures(values) == {"handed": events[0]}


@pytest.mark.parametrize(
    ("fail_on", "checks"),
    [(["critical"], {"leaked", "departed"}), (["over_age"], {"over_age"}), ([], set()),
     (["high", "undeclared"], {"leaked", "departed", "test_on_live", "over_age", "undeclared"})],
)  # fmt: skip
def test_a_build_fails_on_what_it_named(faults: list[Fault], fail_on: list[str], checks: set[str]) -> None:
    assert {fault.check for fault in failing(faults, fail_on)} == checks


@pytest.fixture
def declared(filled: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The commands' configuration, with what the topics say."""

    async def said(_: Config) -> tuple[Catalogue, dict[str, KeyEvent]]:
        return CATALOGUE, {"handed": LEFT}

    monkeypatch.setattr(asking_keys, "_said", said)
    return Config(clickhouse=filled)


def test_the_command_prints_tables_json_and_csv_and_its_exit_code_says_what_was_found(
    declared: Config, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert print_audit(declared, [], [], "table") == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "18 keys declared; 12 faults of 12 keys" in shown
    assert print_audit(declared, ["over_age"], ["high"], "json") == 1
    assert [row["key_id"] for row in json.loads(capsysbinary.readouterr().out)] == ["ancient", "aged"]
    assert print_audit(declared, ["no_allow_list"], ["high"], "csv") == 0
    assert capsysbinary.readouterr().out.decode().startswith("key_id,check,grade,owner,criticality,reason,todo")
    with pytest.raises(ConfigError, match="--fail-on 'worst' is unknown"):
        print_audit(declared, [], ["worst"], "table")
