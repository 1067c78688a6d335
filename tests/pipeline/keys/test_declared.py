"""What the catalogue declares of a key is held against each of its requests."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import (
    DECLARED_COUNTRY,
    DECLARED_DECOY,
    DECLARED_ENDED,
    DECLARED_LEAKED,
    DECLARED_LIVE_TEST,
    DECLARED_NETWORK,
    DECLARED_OVERAGE,
    DECLARED_READ_ONLY,
    DECLARED_SCOPE,
    DECLARED_SUPERSEDED,
    DECLARED_SUSPENDED,
    DECLARED_TEST_LIVE,
    OPERATION_DELETE,
    OPERATION_READ,
    OPERATION_WRITE,
)
from pipeline.column import coded, constant
from pipeline.config.tree import KeyLife
from pipeline.geo.provider import Place
from pipeline.hours import Hours
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.declared import GRACE_US, LIVE, TEST, Declarations
from schemas.key import BusinessHours, Key, Status

NOW_US = 1_790_000_000_000_000


def bits(key: Key | None, **event: Any) -> int:
    asked: dict[str, Any] = {
        "live": LIVE,
        "does": OPERATION_READ,
        "ts_us": NOW_US,
        "scope": "",
        "address": "",
        "country": "",
    } | event
    found = Declarations().bits(
        coded([key]), np.array([asked["live"]]), np.array([asked["does"]]), np.array([asked["ts_us"]]),
        coded([asked["scope"]]), coded([asked["address"]]), coded([place(asked["country"])]),
    )  # fmt: skip
    return int(found[0])


def place(country: str) -> Place:
    return Place(country=country)


@pytest.mark.parametrize(
    ("declared", "event", "broken"),
    [
        ({"decoy": True}, {}, DECLARED_DECOY),
        ({"status": "revoked"}, {}, DECLARED_ENDED),
        ({"status": "expired"}, {}, DECLARED_ENDED),
        ({"status": "suspended"}, {}, DECLARED_SUSPENDED),
        ({"status": "revoked", "ended_at": "2026-09-01T00:00:00Z"}, {}, DECLARED_ENDED),
        ({"status": "revoked", "ended_at": "2026-09-22T00:00:00Z"}, {}, 0),  # used before it was
        ({"status": "expired", "ended_at": "2026-09-22T00:00:00Z", "decoy": True}, {}, DECLARED_DECOY),
        ({"status": "revoked", "ended_at": "once"}, {}, DECLARED_ENDED),
        ({"status": "suspended", "ended_at": "2026-09-22T00:00:00Z"}, {}, DECLARED_SUSPENDED),
        ({"status": "active", "ended_at": "2026-09-01T00:00:00Z"}, {}, 0),
        ({"environment": "test"}, {"live": LIVE}, DECLARED_TEST_LIVE),
        ({"environment": "test"}, {"live": TEST}, 0),
        ({"environment": "live"}, {"live": TEST}, DECLARED_LIVE_TEST),
        ({"environment": "live"}, {"live": 0}, 0),
        ({"role": "read_only"}, {"does": OPERATION_WRITE}, DECLARED_READ_ONLY),
        ({"role": "read_only"}, {"does": OPERATION_DELETE}, DECLARED_READ_ONLY),
        ({"role": "read_only"}, {}, 0),
        ({"role": "full"}, {"does": OPERATION_DELETE}, 0),
        ({"scopes": ("a", "b")}, {"scope": "c"}, DECLARED_SCOPE),
        ({"scopes": ("a", "b")}, {"scope": "b"}, 0),
        ({"scopes": ("a",)}, {"scope": ""}, 0),
        ({}, {"scope": "c"}, 0),
        ({"allowed_networks": ("192.0.2.0/24",)}, {"address": "198.51.100.1"}, DECLARED_NETWORK),
        ({"allowed_networks": ("192.0.2.0/24", "2001:db8::/32")}, {"address": "2001:db8::1"}, 0),
        ({"allowed_networks": ("192.0.2.0/24",)}, {"address": "192.0.2.9"}, 0),
        ({"allowed_networks": ("192.0.2.0/24",)}, {"address": ""}, 0),
        ({"allowed_networks": ("no network",)}, {"address": "192.0.2.9"}, 0),
        ({"allowed_countries": ("DE",)}, {"country": "RO"}, DECLARED_COUNTRY),
        ({"allowed_countries": ("DE",)}, {"country": "DE"}, 0),
        ({"allowed_countries": ("DE",)}, {"country": ""}, 0),
        ({"created_at": "2024-01-01T00:00:00Z"}, {}, DECLARED_OVERAGE),
        ({"created_at": "2024-01-01T00:00:00Z", "last_rotated_at": "2026-09-01T00:00:00Z"}, {}, 0),
        ({"created_at": "once"}, {}, 0),
        ({"rotated_to": "n", "superseded_at": "2026-09-01T00:00:00Z"}, {}, DECLARED_SUPERSEDED),
        ({"rotated_to": "n", "superseded_at": "2026-09-18T00:00:00Z"}, {}, 0),  # within the overlap
        ({"rotated_to": "n"}, {}, 0),
    ],
)
def test_each_declaration_is_held_against_the_request(
    declared: dict[str, Any], event: dict[str, Any], broken: int
) -> None:
    assert bits(Key(key_id="k", **declared), **event) == broken


@pytest.mark.parametrize("status", ["revoked", "expired"])
def test_what_gateways_let_in_within_a_minute_of_the_end_is_no_proof(status: Status) -> None:
    key, ended_us = Key(key_id="k", status=status, ended_at="2026-09-21T14:00:00Z"), 1_789_999_200_000_000
    late = (-86_400_000_000, 0, GRACE_US - 1, GRACE_US)
    assert [bits(key, ts_us=ended_us + each) for each in late] == [0, 0, 0, DECLARED_ENDED]
    without = Key(key_id="k", status=status)
    assert all(bits(without, ts_us=ended_us + each) == DECLARED_ENDED for each in late), "as nobody says since when"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_a_date_without_an_offset_is_utc_on_whatever_machine_it_is_judged(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, or a worker and whoever replays its log, would else judge a key differently for hours."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        key = Key(key_id="k", leaked_at="2026-09-21T14:00:00")
        leaked_us = 1_789_999_200_000_000
        assert [bits(key, ts_us=leaked_us + late) for late in (-1, 0)] == [0, DECLARED_LEAKED]
    finally:
        monkeypatch.undo()
        time.tzset()


TEXTS = st.text(max_size=64) | st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30", "2026-09-21", "24:00", "10.0.0.0/99",
     "::/0", "0.0.0.0/0", "../../etc/passwd", "\0", "Europe/Berlin"]
)  # fmt: skip


@given(
    st.builds(
        Key, key_id=st.just("k"), role=st.sampled_from(["", "read_only"]), scopes=st.tuples(TEXTS), time_zone=TEXTS,
        business_hours=st.builds(
            BusinessHours, start_min=st.integers(0, 1440), end_min=st.integers(0, 1440),
            weekdays=st.lists(st.integers(0, 6), max_size=9).map(tuple),
        ),
        holidays_country=st.text(max_size=2), allowed_networks=st.tuples(TEXTS), allowed_countries=st.tuples(TEXTS),
        created_at=TEXTS, superseded_at=TEXTS, rotated_to=TEXTS, last_rotated_at=TEXTS, leaked_at=TEXTS,
    ),
    TEXTS,
)  # fmt: skip
def test_whatever_stands_on_the_keys_topic_a_request_of_its_key_is_judged(key: Key, text: str) -> None:
    """Anything in the schema's bounds may be there, whoever wrote it: one key must not end a partition."""
    assert bits(key, scope=text, address=text, country=text) >= 0
    assert Hours().clock(np.array([NOW_US // 1_000_000]), coded([key])).local_hour[0] in range(-1, 168)


def test_an_undeclared_key_breaks_nothing() -> None:
    assert bits(None, live=TEST, does=OPERATION_DELETE, scope="x", address="192.0.2.1", country="RO") == 0


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30))
def test_keys_of_a_slice_do_not_disturb_each_other(names: list[str | None]) -> None:
    declared = {
        "a": Key(key_id="a", decoy=True),
        "b": Key(key_id="b", role="read_only"),
        "c": Key(key_id="c", allowed_countries=("DE",)),
    }
    keys = [declared[name] if name else None for name in names]
    n = len(names)
    found = Declarations().bits(
        coded(keys), np.zeros(n), np.full(n, OPERATION_WRITE), np.full(n, NOW_US), constant("", n),
        constant("192.0.2.1", n),
        coded([place("RO")] * n),
    )  # fmt: skip
    expected = {"a": DECLARED_DECOY, "b": DECLARED_READ_ONLY, "c": DECLARED_COUNTRY, None: 0}
    assert found.tolist() == [expected[name] for name in names]


def test_a_key_that_is_declared_anew_is_judged_anew() -> None:
    declarations = Declarations()
    answers = []
    for key in (Key(key_id="k"), Key(key_id="k", decoy=True), Key(key_id="k")):
        found = declarations.bits(
            coded([key]), np.zeros(1), np.zeros(1), np.zeros(1), coded([""]), coded([""]), coded([place("")])
        )
        answers.append(int(found[0]))
    assert answers == [0, DECLARED_DECOY, 0]


def test_the_setting_says_how_old_a_key_may_be_how_long_two_are_valid_and_where_tests_run() -> None:
    key = Key(
        key_id="k", environment="live", created_at="2026-08-01T00:00:00Z", rotated_to="n",
        superseded_at="2026-09-01T00:00:00Z",
    )  # fmt: skip

    def found(life: KeyLife, address: str = "192.0.2.7") -> int:
        asked = (np.zeros(1), np.zeros(1), np.full(1, NOW_US), coded([""]), coded([address]), coded([place("")]))
        return int(Declarations(life).bits(coded([key]), *asked)[0])

    assert found(KeyLife()) == DECLARED_SUPERSEDED
    assert found(KeyLife(rotation_days=30, overlap_days=90)) == DECLARED_OVERAGE
    tests_run = KeyLife(overlap_days=90, test_networks=("192.0.2.0/24", "2001:db8::/32"))
    assert found(tests_run) == DECLARED_LIVE_TEST
    assert found(tests_run, "198.51.100.1") == found(tests_run, "") == found(tests_run, "nonsense") == 0
    with pytest.raises(ValueError, match="nonsense"):
        KeyLife(test_networks=("nonsense",))


def test_a_key_is_superseded_when_its_successor_was_made_and_the_catalogue_fills_that_in() -> None:
    old, new = Key(key_id="o", rotated_to="n"), Key(key_id="n", created_at="2026-09-01T00:00:00Z")
    known = Catalogue.of([old, new])
    told = known.get("o")
    assert told is not None and told.superseded_at == new.created_at
    assert known.written("o") == old
    assert Catalogue.of([old]).get("o") == old
    later = Key(key_id="o", rotated_to="n", created_at="2026-09-02T00:00:00Z")
    assert Catalogue.of([later, new]).get("o") == later, "its successor was there before it: nobody says since when"
    own = Key(key_id="o", rotated_to="n", superseded_at="2026-09-11T00:00:00Z")
    assert Catalogue.of([own, new]).get("o") == own


LEAKED_AT = "2026-09-21T14:13:20+00:00"  # NOW_US


def test_a_leaked_key_is_marked_from_its_leak_on_and_says_since_when() -> None:
    key = Key(key_id="k", leaked_at=LEAKED_AT)
    assert bits(key, ts_us=NOW_US) == DECLARED_LEAKED
    assert bits(key, ts_us=NOW_US - 1) == 0
    assert Declarations().leaked_h(coded([key])).tolist() == [NOW_US // 3_600_000_000 % 65_536]


def test_a_secret_that_is_younger_than_the_leak_is_not_public() -> None:
    assert bits(Key(key_id="k", leaked_at=LEAKED_AT, last_rotated_at="2026-09-21T15:00:00+00:00")) == 0
    assert bits(Key(key_id="k", leaked_at=LEAKED_AT, last_rotated_at="2026-09-21T13:00:00+00:00")) == DECLARED_LEAKED
    assert bits(Key(key_id="k", leaked_at="some time ago")) == 0
