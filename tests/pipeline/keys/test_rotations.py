"""An old key may go once its traffic has moved, its rarest job included; until then it is told who still uses it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.asking import keys as asking_keys
from pipeline.asking.keys import print_rotations
from pipeline.config.tree import ClickHouse, Config, KeyLife
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.rotations import Rotation, began_us, drained, overdue_words, pairs, rotations
from pipeline.sinks.connect import connect
from pipeline.times import rfc3339
from schemas.key import Key
from tests.pipeline.key_rows import DAY_US, HOUR_US, NOON_US, Use, daily, fill

H = 3_600.0
MADE = {days: rfc3339(NOON_US - days * DAY_US) for days in (1, 5, 10, 20)}
CATALOGUE = Catalogue.of(
    [
        Key(key_id="going", owner="acme", rotated_to="going2"), Key(key_id="going2", created_at=MADE[5]),
        Key(key_id="late"), Key(key_id="late2", created_at=MADE[10], rotated_from="late"),
        Key(key_id="gone", rotated_to="gone2"), Key(key_id="gone2", created_at=MADE[10]),
        Key(key_id="weekly", rotated_to="weekly2"), Key(key_id="weekly2", created_at=MADE[10]),
        Key(key_id="fresh", rotated_to="fresh2"), Key(key_id="fresh2", created_at=MADE[1]),
        Key(key_id="unknown", rotated_to="nowhere"),
        Key(key_id="done", rotated_to="done2", status="revoked"), Key(key_id="done2", created_at=MADE[20]),
        Key(key_id="single"),
    ]
)  # fmt: skip
USES = [
    *daily("going", range(30), times=10), *daily("going2", range(5), times=30),
    *daily("late", range(30), hour=-1, times=2),
    *daily("late", [0], ip="192.0.2.9", asn=64_501, client="curl", times=5),
    *daily("late2", range(10)),
    *daily("gone", range(6, 30)), *daily("gone2", range(9)),
    *daily("weekly", range(3, 40, 7)), *daily("weekly2", range(9)),
    *daily("fresh", range(30)), *daily("unknown", range(30)), *daily("done", range(3)),
    Use("late", NOON_US - HOUR_US, outcome="invalid", ip="203.0.113.9", asn=64_666, times=1000),
]  # fmt: skip


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    fill(database, USES)
    return database


@pytest.fixture(scope="module")
def found(filled: ClickHouse) -> dict[str, Rotation]:
    client = connect(filled, filled.database)
    rows = rotations(client, CATALOGUE, KeyLife())
    client.close()
    return {row.old: row for row in rows}


def test_a_rotation_is_known_from_either_end_and_is_over_with_the_old_key() -> None:
    olds = {old.key_id: new.key_id for old, new in pairs(CATALOGUE)}
    assert olds == {
        "going": "going2", "late": "late2", "gone": "gone2", "weekly": "weekly2", "fresh": "fresh2",
        "unknown": "nowhere",
    }  # fmt: skip


def test_each_rotation_is_in_the_state_that_its_traffic_and_deadline_say(found: dict[str, Rotation]) -> None:
    assert {old: row.state for old, row in found.items()} == {
        "going": "due", "late": "overdue", "gone": "drained", "weekly": "overdue", "fresh": "draining",
        "unknown": "draining",
    }  # fmt: skip
    assert (found["going"].began_us, found["going"].deadline_us) == (NOON_US - 5 * DAY_US, NOON_US + 2 * DAY_US)
    assert (found["unknown"].began_us, found["unknown"].deadline_us) == (0, 0)


def test_a_rotation_to_an_older_key_did_not_begin_when_that_one_was_made() -> None:
    old, new = Key(key_id="o", created_at=MADE[5], rotated_to="n"), Key(key_id="n", created_at=MADE[10])
    assert began_us(old, new, NOON_US - 9 * DAY_US) == 0
    assert began_us(old, new, NOON_US - DAY_US) == NOON_US - DAY_US, "used for the first time since"
    assert began_us(msgspec.structs.replace(old, last_rotated_at=MADE[1]), new, 0) == NOON_US - DAY_US


def test_a_weekly_job_must_have_had_its_turn(found: dict[str, Rotation]) -> None:
    drain = found["weekly"].drain
    assert not drain.drained  # quiet for 3 days: longer than `quiet_h`, not longer than its rhythm
    assert drain.since_us == NOON_US - 3 * DAY_US
    assert drain.safe_at_us == NOON_US - 3 * DAY_US + 14 * DAY_US
    assert "its longest pause was 7 days" in drain.reason


def test_how_much_is_still_on_the_old_key_and_from_where_is_told(found: dict[str, Rotation]) -> None:
    late = found["late"]
    assert (late.old_requests_24h, late.new_requests_24h) == (7, 1)
    assert (late.new_used_us, found["unknown"].new_used_us) == (NOON_US, 0)
    assert late.old_share == pytest.approx(7 / 8)
    assert [(s.prefix, s.client, s.requests) for s in late.sources] == [
        ("198.51.100.0/24", "python-requests", 14), ("192.0.2.0/24", "curl", 5),
    ]  # fmt: skip  # whoever only tries the key's id does not keep it alive
    assert found["gone"].sources[0].last_us == NOON_US - 6 * DAY_US


def test_the_report_is_warned_of_what_is_due(found: dict[str, Rotation]) -> None:
    words = overdue_words(list(found.values()))
    assert len(words) == 3
    assert any(line.startswith("late -> late2: overdue") and "7 requests a day" in line for line in words)


@pytest.mark.parametrize(
    ("last_h", "pause_h", "is_drained"),
    [(23.9, 1, False), (24, 1, True), (47.9, 24, False), (48, 24, True), (400, 0, True)],
)
def test_quiet_for_twice_the_longest_pause_is_drained(last_h: float, pause_h: float, is_drained: bool) -> None:
    last = NOON_US - round(last_h * HOUR_US)
    assert drained(last, 0, NOON_US, pause_h * H, 24 * H).drained is is_drained


def test_a_key_that_was_never_used_waits_from_the_beginning_of_the_rotation() -> None:
    assert not drained(0, NOON_US - HOUR_US, NOON_US, 0, 24 * H).drained
    assert drained(0, NOON_US - DAY_US, NOON_US, 0, 24 * H).drained


TIMES = st.integers(NOON_US - 400 * DAY_US, NOON_US + 400 * DAY_US)


@given(TIMES, TIMES, TIMES, st.floats(0, 5e6), st.floats(0, 5e6), st.floats(0, 5e6))
def test_more_quiet_never_undoes_a_drain_and_a_use_always_does(
    last: int, began: int, now: int, pause_s: float, quiet_s: float, later_s: float
) -> None:
    drain = drained(last, began, now, pause_s, quiet_s)
    assert drain.drained == (now >= drain.safe_at_us)
    assert drain.since_us >= last
    later = now + round(later_s * 1e6)
    assert drained(last, began, later, pause_s, quiet_s).drained or not drain.drained
    if quiet_s * 1e6 > 1:
        assert not drained(max(last, now), began, now, pause_s, quiet_s).drained


def test_the_command_prints_writes_metrics_and_fails_on_what_is_named(
    filled: ClickHouse, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    async def said(_: Config) -> Catalogue:
        return CATALOGUE

    monkeypatch.setattr(asking_keys, "read_catalogue", said)
    monkeypatch.setenv("COLUMNS", "200")
    config, file = Config(clickhouse=filled), tmp_path / "rotations.prom"
    assert print_rotations(config, ["overdue"], file, "json") == 1
    rows = json.loads(capsysbinary.readouterr().out)
    assert [row["old"] for row in rows][-1] == "gone"
    assert 'keywatch_rotations{state="overdue"} 2.0' in file.read_text()
    assert 'keywatch_rotations{state="drained"} 1.0' in file.read_text()
    assert list(tmp_path.iterdir()) == [file]
    assert print_rotations(config, [], None, "table") == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "still on late" in shown and "now: quiet for 6 days" in shown
    assert print_rotations(config, [], None, "csv") == 0
    assert capsysbinary.readouterr().out.decode().startswith("old,new,owner,state,began_us")
    with pytest.raises(ConfigError, match="'never' is unknown"):
        print_rotations(config, ["never"], None, "table")
