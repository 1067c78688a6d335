"""What holds for every detector of the tuple, whichever they are: nobody has to remember to test it."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, fuse
from detectors.detector import DECLARED_DECOY, READING, VISIT, Detector, config_record
from detectors.generate import load_pass
from detectors.records import reading_of, records
from tests.detectors.one_more import one_more
from tests.detectors.streams import CONTEXT, DAY_US, Judge, blank, compiled_pass, daily_visits, random_stream

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
each = pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
seeds = st.integers(0, 2**32 - 1)


def calls(detector: Detector) -> tuple[Any, Any, Any]:
    """The three functions, compiled as in the pass."""
    module = load_pass(DETECTORS)
    k = DETECTORS.index(detector)
    return module.__dict__[f"score_{k}"], module.__dict__[f"learn_{k}"], module.__dict__[f"settle_{k}"]


def live(judge: Judge, detector: Detector, event: Any, key: int = 0) -> tuple[Any, ...]:
    """Arguments of `score` but the reading: records of the judge's state."""
    keys, shared = records(judge.keys)[key], records(judge.shared)[0]
    config = records(config_record(detector.config))[0]
    return keys[detector.name], shared[detector.name], keys["visit"], event, config


def copied(array: Any) -> Any:
    """With the padding between fields, which numpy's own copy leaves to chance."""
    return np.frombuffer(bytearray(array.tobytes()), array.dtype)


def warm(seed: int, count: int = 600) -> Judge:
    judge = Judge(3)
    judge.feed(random_stream(seed, count, 3))
    return judge


@each
@settings(max_examples=15)
@given(seed=seeds, is_warm=st.booleans())
def test_a_score_is_finite_and_not_negative_and_writes_nothing_but_its_reading(
    detector: Detector, seed: int, is_warm: bool
) -> None:
    judge = warm(seed % 50) if is_warm else Judge(3)
    events = records(random_stream(seed, 20, 1))
    score, _, _ = calls(detector)
    for event in events:
        reading = records(np.zeros(1, READING))
        before = (judge.keys.tobytes(), judge.shared.tobytes(), events.tobytes())
        score(*live(judge, detector, event), reading[0])
        assert (judge.keys.tobytes(), judge.shared.tobytes(), events.tobytes()) == before
        assert all(math.isfinite(reading[0][name]) for name in READING.names or () if name != "pad")
        assert reading[0]["bits"] >= 0
        assert (reading[0]["bits"] * 64) % 1 == 0, "bits are rounded to 1/64"
        assert reading[0]["covered"] in (0, 1)
        assert reading[0]["covered"] or reading[0]["bits"] == 0
        assert isinstance(detector.explain(reading_of(reading[0]), CONTEXT), str)


@each
@settings(max_examples=10)
@given(seed=seeds, weight=st.sampled_from([0.0, 1.0]))
def test_learning_and_settling_write_the_detectors_own_record_and_its_shared_part_only(
    detector: Detector, seed: int, weight: float
) -> None:
    judge = warm(seed % 50)
    events = records(random_stream(seed, 10, 1))
    _, learn, settle = calls(detector)
    others, shared = copied(judge.keys), copied(judge.shared)
    for event in events:
        state, common, visit, _, config = live(judge, detector, event)
        learn(state, common, visit, event, weight, config)
        settle(state, common, visit, weight, config)
    others[detector.name][0] = judge.keys[detector.name][0]
    shared[detector.name] = judge.shared[detector.name]
    assert others.tobytes() == judge.keys.tobytes()
    assert shared.tobytes() == judge.shared.tobytes()


@each
def test_an_event_whose_format_shows_nothing_is_not_covered(detector: Detector) -> None:
    if not detector.family.startswith(("network", "outcome")):
        pytest.skip("needs no capability: it judges times")
    judge = warm(1)
    events = records(blank(1))
    events[0]["sees"] = 0
    reading = records(np.zeros(1, READING))
    calls(detector)[0](*live(judge, detector, events[0]), reading[0])
    assert reading[0]["covered"] == 0
    assert reading[0]["bits"] == 0


@settings(max_examples=12)
@given(seed=seeds, cuts=st.lists(st.integers(0, 400), max_size=6), rows=st.integers(len(DETECTORS) + 2, 40))
def test_the_pass_cut_at_any_places_gives_the_same_findings_incidents_and_state(
    seed: int, cuts: list[int], rows: int
) -> None:
    events = random_stream(seed, 400, 3)
    whole, cut = Judge(3, listed_days=2.0), Judge(3, listed_days=2.0)
    whole.feed(events)
    for part in np.split(events, sorted(cuts)):
        cut.feed(part, rows)
    assert cut.found == whole.found
    assert cut.changed == whole.changed
    assert cut.keys.tobytes() == whole.keys.tobytes()
    assert cut.shared.tobytes() == whole.shared.tobytes()


@each
@settings(max_examples=8)
@given(seed=seeds)
def test_what_is_learned_of_a_key_does_not_depend_on_another_keys_events(detector: Detector, seed: int) -> None:
    events = random_stream(seed, 300, 2)
    alone, together = (Judge(2, listed_days=1e15, page_days=1e15) for _ in range(2))
    together.feed(events)
    alone.feed(events[events["slot"] == 0])
    assume(not alone.changed and not together.changed)  # proofs: how an incident grows hangs on what is shared
    if detector.shared.itemsize <= 1:
        assert alone.keys[detector.name][0].tobytes() == together.keys[detector.name][0].tobytes()
    # the other key's record has not been touched by slot 0's events
    assert not np.frombuffer(alone.keys[detector.name][1].tobytes(), np.uint8).any()


@each
def test_some_score_above_zero_really_occurs(detector: Detector) -> None:
    judge = Judge(2)
    score = calls(detector)[0]
    best = 0.0
    for seed in range(6):
        events = random_stream(seed, 500, 2, days=40.0)
        night = random_stream(seed + 90, 300, 2, days=0.01)
        night["ts_us"] += int(events["ts_us"].max() - night["ts_us"].min()) + (7 + 200 * seed) * 3_600_000_000
        night["asn"][::10] = 70_000
        night["address"][::10] = 70_000 << 40
        night["client"][::10] = 70_000
        night["object"] = np.arange(1_000, 1_000 + len(night))
        night["bytes_out"] = 10_000_000
        night["declared"][::50] = DECLARED_DECOY
        judge.feed(events)
        for event in records(night):
            reading = records(np.zeros(1, READING))
            score(*live(judge, detector, event), reading[0])
            best = max(best, float(reading[0]["bits"]))
            judge.feed(np.array([event], night.dtype))
        judge = Judge(2)
    assert best > 0


def test_state_survives_the_way_through_bytes() -> None:
    events = random_stream(5, 800, 3)
    straight, stored = Judge(3), Judge(3)
    straight.feed(events)
    stored.feed(events[:400])
    stored.keys = np.frombuffer(bytearray(stored.keys.tobytes()), stored.keys.dtype)
    stored.shared = np.frombuffer(bytearray(stored.shared.tobytes()), stored.shared.dtype)
    stored.feed(events[400:])
    assert stored.keys.tobytes() == straight.keys.tobytes()
    assert stored.found == straight.found


def fingerprint() -> str:
    """What the pass makes of fixed streams, as one hash."""
    digest = hashlib.sha256()
    for seed in (1, 2):
        judge = Judge(3, listed_days=2.0)
        judge.feed(random_stream(seed, 500, 3, days=6.0))
        digest.update(judge.keys.tobytes() + judge.shared.tobytes() + repr((judge.found, judge.changed)).encode())
    return digest.hexdigest()


def test_the_compiled_pass_and_plain_python_agree_bit_for_bit() -> None:
    code = "from tests.detectors.test_contract import fingerprint; print(fingerprint())"
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip() == fingerprint()


@each
def test_it_is_described_and_has_its_own_tests(detector: Detector) -> None:
    module = sys.modules[f"detectors.{detector.name}"]
    for heading in ("Detects:", "Misses:", "False alarms:", "Source:"):
        assert heading in (module.__doc__ or ""), f"{detector.name} does not say {heading}"
    assert (HERE / f"test_{detector.name}.py").is_file()
    assert detector.family in fuse.FAMILIES
    assert detector.unit


def test_names_are_unique_and_a_key_fits_its_budget() -> None:
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)
    assert fuse.key_dtype(DETECTORS).itemsize <= 1824
    assert VISIT.itemsize <= 48


def test_a_key_that_is_known_for_less_than_a_week_teaches_nobody() -> None:
    judge = Judge(4)
    judge.feed(random_stream(1, 500, 3, days=9.0))
    before, keys = copied(judge.shared), int(judge.shared["geography"]["keys"][0])
    young, grown = random_stream(2, 300, 1, days=6.5), random_stream(3, 200, 1, days=3.0)
    for events, days, first in ((young, 10, 1_000_000), (grown, 18, 2_000_000)):
        events["slot"] = 3
        events["ts_us"] += days * DAY_US
        events["request"] += first
    judge.feed(young)
    assert judge.keys["visit"]["ordinal"][3] > 10
    assert judge.shared.tobytes() == before.tobytes(), "whatever a detector shares"
    judge.feed(grown)
    taught = {name for name in before.dtype.names if judge.shared[name].tobytes() != before[name].tobytes()}
    assert taught >= {"calibration", "geography", "novel_client", "spike", "errors", "egress"}
    assert judge.shared["geography"]["keys"][0] == keys + 1, "with the networks that it brought, once"


def test_a_key_that_taught_while_the_partition_was_young_is_not_counted_again_when_it_is_a_week_old() -> None:
    judge = Judge(2)
    events = daily_visits(20)
    old, younger = events.copy(), events.copy()
    younger["slot"] = 1
    younger["ts_us"] += 5 * DAY_US  # two days in the partition's first week, five silent ones, then a grown key
    younger["request"] += 1_000_000
    both = np.concatenate([old, younger])
    judge.feed(both[np.argsort(both["ts_us"], kind="stable")])
    assert judge.shared["geography"]["keys"][0] == 2


def test_a_partition_is_as_old_as_its_oldest_key_also_after_an_upgrade_that_does_not_know_it() -> None:
    judge = Judge(2)
    life = daily_visits(20)
    judge.feed(life)
    judge.shared["since_us"] = 0
    judge.feed(one_more(life))
    assert judge.shared["since_us"][0] == life["ts_us"][0]
    before = copied(judge.shared)
    young = daily_visits(2)
    young["slot"], young["ts_us"], young["request"] = 1, young["ts_us"] + 22 * DAY_US, young["request"] + 2_000_000
    judge.feed(young)
    assert judge.shared.tobytes() == before.tobytes()


def test_while_nothing_is_older_than_a_week_young_keys_teach() -> None:
    judge = Judge(1)
    judge.feed(daily_visits(3))
    assert judge.shared["calibration"]["visits"].sum() > 0


def test_output_arrays_too_small_for_one_event_are_refused() -> None:
    judge = Judge(1)
    with pytest.raises(ValueError, match="room for"):
        compiled_pass()(
            judge.keys, judge.shared, blank(1), 0, judge.configs, judge.settings,
            np.zeros(0, fuse.FOUND), np.zeros(2, fuse.CHANGED),
        )  # fmt: skip


def test_a_detector_table_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no such detector: nonsense"):
        fuse.configs(DETECTORS, {"nonsense": {}})
    with pytest.raises(ValueError, match="has no setting"):
        fuse.configs(DETECTORS, {DETECTORS[0].name: {"nonsense": 1}})
