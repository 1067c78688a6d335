"""Slots are given out by the log alone, since detectors tell keys apart by them."""

from __future__ import annotations

from pipeline.state import State
from tests.pipeline.restoring import carried


def restored(old: State) -> State:
    return carried(old, State(), old.meta_bytes())


def test_a_restart_between_eviction_and_new_keys_changes_no_slot() -> None:
    state = State()
    for number in range(6):
        state.add_key(f"k{number}", None)
    for slot in (1, 4, 2):
        state.drop_key(slot)
    other = restored(state)
    assert [state.add_key(f"n{i}", None) for i in range(4)] == [other.add_key(f"n{i}", None) for i in range(4)]
