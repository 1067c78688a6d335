"""Silence: a steady key that stops.

Detects: a key that was used in most hours and is not any more: an integration that broke, a key that somebody took
away, an attacker who cut its owner off. Where many stop at once the cause is not theirs: the API, the way of its log,
or Keywatch itself is down; that is told once, with how many keys, and not once for each.
Misses: keys that pause for a night or a weekend longer than `MOST_SILENCE_H` in three of their longest pauses: they are
not steady and not watched (`pulse.patience_h` is 0). Whatever stops within six hours of its end is told then.
False alarms: planned ends that the catalogue does not know; a holiday of a key that never had one; a log that is read
in again from files (only a fleet that was heard within `HEARD_US` is listened to).
Source: reference/detections.md, section 3 ("silence of a steady key"; Elastic, WSO2); the law is `pulse.py`'s.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any, Final

import msgspec
import numpy as np

from detectors.records import records
from pipeline.state.pages import Blobs, PagedArray
from pipeline.times import rfc3339
from pipeline.topologies import pulse
from pipeline.topologies.episodes import NEVER_US, Episodes, Evidence
from pipeline.topologies.pulse import HOUR_US, PULSE
from schemas.incident import Band, Finding, Incident, Sample, Severity
from schemas.sighting import FLEET, Beat

MOST_KEYS: Final = 1_000_000
TOGETHER_US: Final = HOUR_US
TOGETHER_KEYS: Final = 5
TOGETHER_SHARE: Final = 0.02
DAY_US: Final = 24 * HOUR_US
HEARD_US: Final = 7 * DAY_US
NAMED: Final = 50


class Stop(msgspec.Struct):
    """Many keys stopped at about one time."""

    at_us: int
    keys: int
    back: int = 0
    first_id: str = ""


class Extra(msgspec.Struct):
    """What is in no array."""

    stop: Stop | None = None
    newest_us: int = 0


class Silence:
    """Judges beats. Rows of `pulses` are keys; `names` says whose."""

    def __init__(self, episodes: Episodes, partition: int) -> None:
        self.pulses = PagedArray("pulses", PULSE, 64)
        self.names = Blobs("pulse_names", 64)
        self.extra = Extra()
        self._episodes = episodes
        self._partition = partition
        self._rows: dict[str, int] = {}
        self._key_ids: dict[int, str] = {}
        self._due: list[tuple[int, int]] = []  # (when to look at it, row)
        self._at: dict[int, int] = {}  # row -> its one valid entry

    def see(self, beat: Beat, out: list[Incident]) -> None:
        """One sign of life."""
        row = self._rows.get(beat.key_id)
        if row is None:
            row = self._admit(beat.key_id)
            if row is None:
                return
        record = records(self.pulses.data)[row]
        was_stopped, last_us = int(record["stopped_us"]) != 0, int(record["last_us"])
        if not pulse.beat(record, beat.ts_us):
            return
        self.pulses.touch(np.array([row]))
        self.extra.newest_us = max(self.extra.newest_us, beat.ts_us)
        if was_stopped:
            self._back(beat, last_us, out)
        self._watch(row, record)

    def _admit(self, key_id: str) -> int | None:
        if len(self._rows) >= MOST_KEYS:
            return None
        row = self.pulses.used
        self.pulses.used = row + 1
        self.pulses.reserve(row + 1)
        self._rows[key_id], self._key_ids[row] = row, key_id
        self.names.put(row, key_id.encode())
        return row

    def _watch(self, row: int, record: Any) -> None:
        """Look at it no later than its patience ends: sooner is put right then, later would depend on the past."""
        patience_h = pulse.patience_h(record)
        due_us = int(record["last_us"]) + round(patience_h * HOUR_US)
        if patience_h > 0.0 and due_us < self._at.get(row, NEVER_US):
            self._at[row] = due_us
            heappush(self._due, (due_us, row))

    def _back(self, beat: Beat, last_us: int, out: list[Incident]) -> None:
        stop = self.extra.stop
        if stop is not None and abs(last_us - stop.at_us) <= TOGETHER_US:
            stop.back += 1
            if 2 * stop.back >= stop.keys:
                self._episodes.close(FLEET, "silence", beat.ts_us, out)
                self.extra.stop = None
        self._episodes.close(beat.key_id, "silence", beat.ts_us, out)

    def pass_time(self, watermark_us: int, offset: int, out: list[Incident]) -> None:
        """Look at the keys whose patience may be over."""
        stopped = []
        while self._due and self._due[0][0] <= watermark_us:
            at_us, row = heappop(self._due)
            if self._at.get(row) != at_us:
                continue
            del self._at[row]
            record = records(self.pulses.data)[row]
            patience_h = pulse.patience_h(record)
            if patience_h and int(record["last_us"]) + round(patience_h * HOUR_US) <= watermark_us:
                stopped.append((int(record["last_us"]), row))
            else:
                self._watch(row, record)
        for _, row in sorted(stopped):
            self._stopped(row, records(self.pulses.data)[row], watermark_us, offset, out)

    def _stopped(self, row: int, record: Any, watermark_us: int, offset: int, out: list[Incident]) -> None:
        if watermark_us - self.extra.newest_us > HEARD_US:
            return  # nothing of this was heard live
        last_us, stop = int(record["last_us"]), self.extra.stop
        record["stopped_us"] = watermark_us
        self.pulses.touch(np.array([row]))
        if stop is not None and abs(last_us - stop.at_us) <= TOGETHER_US:
            return
        found = np.zeros(NAMED, np.int64)
        rows = records(self.pulses.data)
        count, steady = pulse.stopped_with(rows, self.pulses.used, last_us, watermark_us, TOGETHER_US, found)
        if count >= max(TOGETHER_KEYS, math.ceil(TOGETHER_SHARE * steady)):
            self._fleet(last_us, count, steady, found[: min(count, NAMED)], watermark_us, offset, out)
        else:
            self._key(self._key_ids[row], record, watermark_us, offset, out)

    def _fleet(
        self, last_us: int, count: int, steady: int, found: Any, watermark_us: int, offset: int, out: list[Incident]
    ) -> None:
        keys = sorted(self._key_ids[row] for row in found.tolist())
        if self.extra.stop is not None and last_us - self.extra.stop.at_us > DAY_US:
            self._episodes.close(FLEET, "silence", watermark_us, out)  # who never came back must not hide the next
        self.extra.stop = Stop(last_us, count, 0, keys[0])
        text = (
            f"fleet: {count} of {steady} steady keys were last used about {rfc3339(last_us)[:16]}Z and not since: an "
            f"outage of the API, of its log's way to Keywatch, or of Keywatch; the keys did nothing. "
            f"{', '.join(keys[:5])}{f' and {count - 5} more' if count > 5 else ''}."
        )
        finding = _finding(watermark_us, float(count), 0.0, 0.0, "keys that stopped at once", text)
        severity: Severity = "high" if 2 * count >= steady else "medium"
        self._episodes.tell(
            Evidence(
                subject=FLEET, rule="silence", first_us=last_us, first_id=keys[0], ts_us=watermark_us,
                severity=severity, rung="observe", text=text, findings=(finding,),
                keys=tuple(keys), keys_total=count,
            ), offset, self._partition, out,
        )  # fmt: skip

    def _key(self, key_id: str, record: Any, watermark_us: int, offset: int, out: list[Incident]) -> None:
        silent_h = (watermark_us - int(record["last_us"])) / HOUR_US
        usual_h, longest_h = math.exp(float(record["law"]["mean"])), float(record["longest_h"])
        text = (
            f"{key_id}: not used for {silent_h:.0f} h, where {_h(usual_h)} between its hours of use are usual and "
            f"{_h(longest_h)} were the longest lately: rarer than once in about {pulse.LISTED_DAYS / 365:.0f} key-years"
        )
        finding = _finding(watermark_us, silent_h, usual_h, longest_h, "hours of silence", text)
        self._episodes.tell(
            Evidence(
                subject=key_id, rule="silence", first_us=int(record["last_us"]), first_id=key_id, ts_us=watermark_us,
                severity="medium", rung="observe", text=text, findings=(finding,), keys=(key_id,), keys_total=1,
            ), offset, self._partition, out,
        )  # fmt: skip

    def save(self) -> bytes:
        """What is in no array."""
        return msgspec.msgpack.encode(self.extra)

    def restore(self, raw: bytes) -> None:
        """Arrays and blobs are filled."""
        self.extra = msgspec.msgpack.decode(raw, type=Extra)
        self._key_ids = {row: name.decode() for row, name in sorted(self.names.rows.items())}
        self._rows = {name: row for row, name in self._key_ids.items()}
        self._due, self._at = [], {}
        rows = records(self.pulses.data)
        for row in range(self.pulses.used):
            if int(rows[row]["stopped_us"]) == 0:
                self._watch(row, rows[row])


def _finding(at_us: int, observed: float, median: float, high: float, unit: str, text: str) -> Finding:
    at = rfc3339(at_us)
    return Finding(
        detector="silence", family="time", bits=10.0, at=at, observed=round(observed, 2), unit=unit, text=text,
        expected=Band(low=0.0, median=round(median, 2), high=round(high, 2)), authenticated=True, sample=Sample(at=at),
    )  # fmt: skip


def _h(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"
