"""What is declared of keys' lives fits what the history does with them, whenever the demo runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.config.tree import KeyLife
from pipeline.demo import fleet, lives
from pipeline.demo.history import HISTORY_DAYS
from pipeline.keys.audit import born_us

CLIENTS = fleet.build(7)
DAY_S = 86_400


@pytest.mark.parametrize("now", [datetime(2026, 11, 24, 2, 30, tzinfo=UTC), datetime(2031, 2, 28, tzinfo=UTC)])
def test_only_those_that_were_never_rotated_are_over_age(now: datetime) -> None:
    allowed_us = (now - timedelta(days=KeyLife().rotation_days)).timestamp() * 1e6
    old = {key.key_id for key in lives.declared(CLIENTS, now) if born_us(key) < allowed_us}
    assert old == set(lives.NEVER_ROTATED)


def test_no_key_is_used_before_it_was_made() -> None:
    now = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
    keys = {key.key_id: key for key in lives.declared(CLIENTS, now)}
    for client in CLIENTS:
        days_old = (now.timestamp() - born_us(keys[client.key_id]) / 1e6) / DAY_S
        assert days_old >= min(client.first_days, HISTORY_DAYS), client.key_id


def test_the_rotation_is_declared_from_both_ends_and_trial_keys_are_nobodys() -> None:
    keys = {key.key_id: key for key in lives.declared(CLIENTS, datetime.now(UTC))}
    assert keys[fleet.REPLACED].rotated_to == fleet.REPLACING
    assert keys[fleet.REPLACING].rotated_from == fleet.REPLACED
    assert set(keys) - {client.key_id for client in CLIENTS} == set(lives.NEVER_USED)
