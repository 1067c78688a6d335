"""Slots are given out by the log alone, since detectors tell keys apart by them."""

from __future__ import annotations

import sys
from threading import Thread

import pytest

from pipeline.state import partition as module
from pipeline.state.partition import State, numbers
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


def test_numbers_that_threads_ask_for_at_once_are_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """One elsewhere would be the slot of another key: two would share a record."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(60):
            kept: list[int] = []
            monkeypatch.setattr(module, "_numbers", kept)
            threads = [Thread(target=lambda: [numbers(n) for n in range(3_000)]) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert kept == list(range(len(kept)))
    finally:
        sys.setswitchinterval(before)
