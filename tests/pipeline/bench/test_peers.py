"""Peers do the worker's detections with their own state; whoever is not installed is skipped, and the bench says so."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.bench import load, peers, river_alone
from pipeline.bench.clock import Clock
from pipeline.bench.judge import KEY, Judge, add_to_minute
from pipeline.demo.children import Children
from pipeline.errors import Fatal
from schemas.event import Event

START_US = 1_780_000_000_000_000
FEW = load.Load(events=300, keys=7)


def one_by_one(events: list[Event]) -> dict[str, bytes]:
    judge, records = Judge(), dict[str, bytes]()
    for number, event in enumerate(events):
        records[event.key_id], _ = judge.judge(event, number, records.get(event.key_id, b""))
    return records


def test_the_minute_counts_events_errors_and_bytes() -> None:
    ok, denied = (Event(key_id="pk_1", ts_us=START_US, status=status, bytes_out=10) for status in (200, 403))
    assert add_to_minute(add_to_minute(None, ok), denied) == [2, 1, 20]


def test_bytewax_ends_with_the_same_state_of_every_key() -> None:
    pytest.importorskip("bytewax")
    from bytewax.testing import TestingSource, run_main

    from pipeline.bench import bytewax_flow

    class Message:
        def __init__(self, event: Event) -> None:
            self.value = msgspec.json.encode(event)

    kept: dict[str, bytes] = {}

    class Remembering(Judge):
        def judge(self, request: Any, offset: int, record: bytes) -> tuple[bytes, int]:
            after, found = super().judge(request, offset, record)
            assert record == kept.get(request.key_id, b"")
            kept[request.key_id] = after
            return after, found

    events = list(load.events(FEW, START_US))
    clock = Clock(len(events))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bytewax_flow, "Judge", Remembering)
        run_main(bytewax_flow.make(TestingSource([Message(event) for event in events]), clock))
    assert clock.last[1] == len(events)
    assert kept == one_by_one(events)
    assert all(len(record) == KEY.itemsize for record in kept.values())


def test_river_scores_the_numbers_of_an_event() -> None:
    pytest.importorskip("river")
    events = list(islice(load.events(FEW, START_US), 50))
    detector = river_alone.model()
    for event in events:
        vector = river_alone.features(event)
        assert 0.0 <= detector.score_one(vector) <= 1.0
        detector.learn_one(vector)
    assert len({tuple(river_alone.features(event).values()) for event in events}) == len(events)
    assert river_alone.measure(load.Load(events=2_000, keys=20)).per_s > 0


async def test_a_peers_pace_is_the_last_line_of_its_process(tmp_path: Path) -> None:
    pytest.importorskip("river")
    children = Children(tmp_path, {})
    (river,) = (peer for peer in peers.PEERS if peer.key == "river_eps")
    pace = await peers.measure(children, river, "", "", 1, 1_000)
    assert pace.per_s > 0
    assert pace.cpu_us is not None
    assert pace.cpu_us > 1.0
    assert children.all == []


async def test_a_peer_that_fails_says_its_last_words(tmp_path: Path) -> None:
    children = Children(tmp_path, {})
    with pytest.raises(Fatal, match=r"river_alone ended with code 1: .*ValueError"):
        await peers.ask(children, "river_alone", ["not a number"])
    assert children.all == []


def test_every_peer_has_a_module_and_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(peers.__file__).parent
    assert all((folder / f"{peer.module}.py").exists() and "keywatch[bench]" in peer.install for peer in peers.PEERS)
    monkeypatch.setattr(sys, "path", [])
    absent = msgspec.structs.replace(peers.PEERS[0], package="no_such_package_anywhere")
    assert not peers.installed(absent)
