"""The worker's way of an event, on one screen: decode, admit, enrich, detect, aggregate, decide.

Pure: arrays and state in, rows and incidents out; no clock, no random, no I/O. The same log and side inputs give the
same incidents and rows wherever slices end (tests/pipeline/test_flow.py holds it to that).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors import DETECTORS, fuse
from detectors.detector import config_record
from detectors.fusion import Settings
from detectors.records import records
from pipeline import admit, aggregate, columns, disown, sight
from pipeline.batch import Batch, held
from pipeline.config import detectors as detector_tables
from pipeline.config.tree import Config
from pipeline.control import feedback, withhold
from pipeline.control.controls import Said
from pipeline.core import Effects, Rows, Sides, Slice
from pipeline.decide import Decider, Decisions
from pipeline.decode import Decoded, decode
from pipeline.enrich import Enricher
from pipeline.fields import Events, Fields
from pipeline.formats import sees_of
from pipeline.geo.provider import Place
from pipeline.one_network import Networks
from pipeline.partitioner import PARTITIONERS
from pipeline.reject_limits import check
from pipeline.state.partition import NEVER_US, Pool, State
from schemas.incident import KEY_RULES, Incident

Array = np.ndarray[Any, Any]


class KeyCore:
    """One partition: implements `pipeline.core.Core`."""

    def __init__(self, partition: int, config: Config, sides: Sides, topic_epoch: str, partitions: int = 0) -> None:
        self.partition = partition
        self._config = config
        self._sides = sides
        self._epoch = topic_epoch
        self._partitions = partitions  # 0: whose key it is isn't checked
        self._state = State()
        simulated = detector_tables.simulated(config.detectors)
        self._decider = Decider(self._state, partition, simulated)
        self._pass = fuse.compile_pass(DETECTORS, simulated)
        self._configs = fuse.configs(DETECTORS, detector_tables.knobs(config.detectors))
        budget = config.budget
        self._settings = config_record(Settings(listed_days=1e5 / budget.listed, page_days=1e5 / budget.page))
        self._found = np.zeros(4096, fuse.FOUND)
        self._changed = np.zeros(1024, fuse.CHANGED)
        self._next_final_us = {"minutes": NEVER_US, "hours": NEVER_US, "sources": NEVER_US}
        self._last_seen: dict[int, tuple[Place, str]] = {}  # slot -> where and in what environment it was used last
        self.networks = Networks()
        self._newest = np.zeros(0, np.int32)  # by slot: its last event in the slice that is judged
        self._enricher = Enricher(sides.geo, sees_of, life=self._config.key_life)
        self._state.shared.used = 1
        self._untold = True  # by what it judges: told with the next adoption, or else with the first slice
        self._take(sides)

    # -- the core's face to a runner ------------------------------------------------------------------------------

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Paged arrays of the state."""
        return self._state.arrays

    @property
    def blobs(self) -> tuple[Any, ...]:
        """Blobs of the state."""
        return self._state.blobs

    @property
    def next_offset(self) -> int:
        """First offset that the state does not include; -1 before any."""
        return self._state.meta.next_offset

    @property
    def state(self) -> State:
        """What the partition knows: for `keywatch bench` and tests."""
        return self._state

    def meta(self) -> bytes:
        """Offset, watermark and versions, for the manifest."""
        return self._state.meta_bytes()

    def restore(self, meta: bytes) -> None:
        """Arrays and blobs are filled."""
        self._state.restore(meta)
        self._untold = True
        for name in self._next_final_us:
            self._next_final_us[name] = getattr(self._state, name).earliest_us()

    def adopted(self, sides: Sides) -> bool:
        """Whether it judges with these versions already."""
        return not self._state.meta.spent and self._state.meta.holds(sides.versions())

    def disown(self, published: Sequence[Incident]) -> Effects:
        """Close what a crash has undone and other side inputs may not bring again; see `pipeline/disown.py`."""
        ours = [x for x in published if x.rule in KEY_RULES]
        mine = [x for x in ours if (self._is_home(x.key_id) if self._partitions else x.partition == self.partition)]
        return disown.disown(self._state, mine)

    def adopt(self, sides: Sides) -> Rows:
        """Judge what follows with these; the rows say from when on; the first time all of them, as one may be lost."""
        changed = self._take(sides)
        if self._untold:
            return self._tell()
        return self._adoptions(changed, self._state.meta.unheard(sides.controls) if "controls" in changed else [])

    def process(self, batch: Slice) -> Effects:
        """Judge one slice that starts at or after `next_offset`."""
        effects = Effects()
        batch = batch.since(self.next_offset)
        if not len(batch.offsets):
            return effects
        decoded = self._ours(batch, decode(batch))
        check(self._state.meta, self._config.worker, self.partition, len(batch.offsets), decoded.rejects)
        effects.rejects = decoded.rejects
        if self._untold:  # nobody adopts anything in a replay
            effects.rows = self._tell()
        heard = self._state, self._sides.controls, self._enricher, self._configs, self.partition, effects
        self._let_go(feedback.hear(*heard), {})
        told, at = decoded.told, decoded.at
        before, after = admit.watermarks(
            batch, at, told.ts_us, self._state.meta.watermark_us, _us(self._config.worker.lateness_s)
        )
        self._judge_all(told, np.asarray(batch.offsets, np.int64)[at], before, effects)
        self._state.meta.watermark_us = after
        self._state.meta.next_offset = batch.next
        if self._state.meta.spent:
            disown.forget(self._state.meta)
        self._finish(after, effects)
        effects.counts["records"] = len(batch.offsets)
        effects.counts["rejects"] = len(decoded.rejects)
        return effects

    def rows_ahead(self, most: int | None) -> Rows:
        """Full values of windows that changed since they were last taken, up to `most` of each kind."""
        out: Rows = {}
        for pool in ("minutes", "hours", "sources"):
            self._write_windows(pool, getattr(self._state, pool).take_changed(most), out)
        return out

    def due_rows(self) -> Rows:
        """All that `rows_ahead` leaves, and when the keys were last used."""
        out = self.rows_ahead(None)
        slots = np.array(sorted(self._last_seen), np.int64)
        self.networks.used((slot, place) for slot, (place, _) in self._last_seen.items())
        if len(slots):
            columns.extend(out, "keys_last_used", columns.last_used(self._state, slots, self._last_seen))
            self._last_seen = {}
        return out

    # -- the way of an event --------------------------------------------------------------------------------------

    def _judge_all(self, told: Fields, offsets: Array, before: Array, effects: Effects) -> None:
        at, full = 0, False
        while at < len(told):
            limit = self._config.worker.max_keys_per_partition
            end = at + 1 if full else len(told)  # the next one may find a key that can be evicted
            some = told.part(at, end)
            slots = admit.slots(self._state, some, self._sides.catalogue.get, limit, full=full)
            found = at + len(slots)
            if len(slots):
                self._judge(some.part(0, len(slots)), slots, offsets[at:found], before[at:found], effects)
            full = found < end and not self._evict(int(before[found]), effects)
            at = found

    def _judge(self, told: Fields, slots: Array, offsets: Array, before: Array, effects: Effects) -> None:
        state = self._state
        declared = state.declared_of(slots)
        rich = self._enricher.columns(told, offsets, declared)
        first_us = np.zeros(len(told), np.int64)
        batch = Batch(
            Events(told), told, declared, rich.columns, rich.places, rich.clients, rich.routes, rich.words, first_us,
        )  # fmt: skip
        numbers = batch.events
        numbers["slot"] = slots
        numbers["late"] = numbers["ts_us"] < before
        keep = np.ones(len(told), np.uint8)
        repeats = admit.first_time(records(numbers), records(state.book.data), keep, first_us)
        touched = numbers["slot"][numbers["slot"] >= 0]
        state.keys.touch(touched)
        state.book.touch(touched)
        state.shared.dirty[0] = True
        if self._config.worker.tell:
            effects.messages += sight.tell(batch, state.marks, state.keys.data, keep, first_us, rich.prefixes)
        found, changed = self._detect(numbers)
        minute, hour = self._aggregate(batch, rich.prefixes, before)
        self._mark_top(found, minute, hour)
        decided = self._decider.decide(batch, keep, found, changed)
        if self._config.worker.tell:
            effects.messages += sight.tell_decisions(decided)
        self._emit(batch, keep, decided, effects)
        effects.count(events=len(told), duplicates=repeats, late=int((numbers["late"] * keep).sum()))
        for finding in decided.findings:
            effects.count(**{f"findings.{finding.detector}": 1})

    def _detect(self, events: Array) -> tuple[Array, Array]:
        found, changed, start = [], [], 0
        while start < len(events):
            start, n_found, n_changed = self._pass(
                self._state.keys.data, self._state.shared.data, events, start, self._configs, self._settings,
                self._found, self._changed,
            )  # fmt: skip
            found.append(self._found[:n_found].copy())
            changed.append(self._changed[:n_changed].copy())
        return np.concatenate(found), np.concatenate(changed)

    def _aggregate(self, batch: Batch, prefixes: Array, before: Array) -> tuple[Array, Array]:
        state, events, lateness_us = self._state, batch.events, _us(self._config.worker.lateness_s)
        touched = []
        for name, head, period_us in WINDOWS:
            pool: Pool = getattr(state, name)
            pool.reserve(len(events))
            at = np.empty(len(events), np.int64)
            pool.n_free = aggregate.add_windows(
                records(events), before, state.book.data[head], records(pool.rows), pool.free, pool.n_free, at,
                period_us, lateness_us, aggregate.BOUNDS,
            )  # fmt: skip
            self._changed_windows(name, pool, at)
            touched.append(at)
        self._aggregate_sources(batch, prefixes, before, lateness_us, touched[1])
        return touched[0], touched[1]

    def _aggregate_sources(self, batch: Batch, prefixes: Array, before: Array, lateness_us: int, hour: Array) -> None:
        pool, n = self._state.sources, len(batch.events)
        if pool.reserve(n):
            self._state.reindex_sources()
        at, made = np.empty(n, np.int64), np.empty(n, np.uint8)
        pool.n_free = aggregate.add_sources(
            records(batch.events), before, prefixes, records(pool.rows), self._state.source_index, pool.free,
            pool.n_free, at, made, aggregate.HOUR_US, lateness_us, records(self._state.hours.rows), hour,
        )  # fmt: skip
        self._state.source_texts.fill_in(pool.rows, at, np.flatnonzero(made), batch)
        self._changed_windows("sources", pool, at)

    def _changed_windows(self, name: str, pool: Pool, at: Array) -> None:
        touched = at[at >= 0]  # a row may come several times: sorting them out costs more
        if len(touched):
            pool.touch(touched)
            self._next_final_us[name] = min(self._next_final_us[name], int(pool.rows["until_us"][touched].min()))

    def _mark_top(self, found: Array, minute: Array, hour: Array) -> None:
        for record in found:
            for pool, at in ((self._state.minutes, minute), (self._state.hours, hour)):
                row = pool.rows[at[record["event"]]]
                if record["bits"] > row["top_bits"]:
                    row["top_bits"], row["top_detector"] = record["bits"], record["detector"] + 1

    def _emit(self, batch: Batch, keep: Array, decided: Decisions, effects: Effects) -> None:
        one_in = max(1, self._config.clickhouse.sample_one_in)
        chosen = np.flatnonzero(keep if one_in == 1 else keep & (batch.events["request"] % one_in == 0))
        self._remember(batch)
        out = effects.rows
        columns.extend(out, "requests", columns.requests(batch, chosen, self._epoch, self.partition, one_in))
        columns.extend(out, "findings", columns.findings(decided, self._epoch, self.partition))
        columns.extend(out, "incidents", columns.incidents(decided.incidents))
        columns.extend(out, "withheld", withhold.rows(decided.withheld, self.partition))
        if decided.evidence:
            events = np.array([i for _, i in decided.evidence])
            copies = columns.requests(batch, events, self._epoch, self.partition, 1)
            columns.extend(out, "evidence", {"incident_id": [x for x, _ in decided.evidence], **copies})
        effects.incidents += decided.incidents

    def _remember(self, batch: Batch) -> None:
        """The newest event of each key's holder, for `keys_last_used`."""
        slots = batch.events["slot"]
        last_us = self._state.book.data["last_us"][slots]  # a late event is not the newest
        at = np.flatnonzero((slots >= 0) & held(batch.events) & (batch.events["ts_us"] == last_us))
        if len(self._newest) < len(self._state.book.data):
            self._newest = np.zeros(len(self._state.book.data), np.int32)
        self._newest[slots[at]] = at  # of one key's several the last counts
        at = at[self._newest[slots[at]] == at]
        seen = zip(batch.places.take(at), batch.words["environment"].take(at), strict=True)
        self._last_seen.update(zip(slots[at].tolist(), seen, strict=True))

    def _finish(self, watermark_us: int, effects: Effects) -> None:
        """What the watermark has passed: incidents that end, windows that are final."""
        self._close_due(watermark_us, effects)
        for name in ("minutes", "hours", "sources"):
            if self._next_final_us[name] <= watermark_us:
                self._release(name, self._final(name, watermark_us), effects.rows)

    def _close_due(self, watermark_us: int, effects: Effects) -> None:
        """Looks at keys with an open incident only: a sweep over a million keys would take longer than a slice."""
        slots = np.array(sorted(self._state.open), np.int64)
        n = len(self._changed) if len(slots) else 0
        while n == len(self._changed):  # a full array may not be all
            keys = self._state.keys.data[slots]
            n = fuse.close_due(keys, len(keys), watermark_us, self._settings, self._changed)
            closed = self._changed[:n]
            closed["slot"] = slots[closed["slot"]]
            self._state.keys.data[slots] = keys
            self._state.keys.touch(closed["slot"].astype(np.int64))
            ended = self._decider.close_due(closed)
            columns.extend(effects.rows, "incidents", columns.incidents(ended))
            effects.incidents += ended

    def _final(self, name: str, watermark_us: int) -> Array:
        rows = getattr(self._state, name).rows
        return np.flatnonzero((rows["live"] == 1) & (rows["until_us"] <= watermark_us))

    def _release(self, name: str, gone: Array, out: Rows) -> None:
        """Write out what has changed of these windows, then give their rows back."""
        pool: Pool = getattr(self._state, name)
        self._write_windows(name, gone[pool.changed[gone]], out)
        if name == "sources":
            pool.release(gone)
            self._state.reindex_sources()
            self._state.source_texts.sweep(pool.rows)
        else:
            pool.rows["live"][gone] = 0
            heads = self._state.book.data["head_1m" if name == "minutes" else "head_1h"]
            linked = np.empty(len(gone), np.int64)
            pool.array.touch(linked[: aggregate.unlink(records(pool.rows), heads, gone, linked)])
            self._state.book.touch(np.unique(pool.rows["slot"][gone]))
            pool.release(gone)
        self._next_final_us[name] = pool.earliest_us()

    def _write_windows(self, name: str, at: Array, out: Rows) -> None:
        if len(at):
            records = getattr(self._state, name).rows[at]
            make = columns.sources if name == "sources" else columns.windows
            columns.extend(out, TABLE_OF[name], make(self._state, records, self._epoch, self.partition))

    # -- keys that come and go ------------------------------------------------------------------------------------

    def _evict(self, watermark_us: int, effects: Effects) -> bool:
        """Make room by forgetting the keys that were used longest ago; False where all are under an incident."""
        self._close_due(watermark_us, effects)  # as if the slice ended here: who can be evicted must not depend on it
        gone = admit.least_recent(self._state, self._config.worker.max_keys_per_partition)
        if not gone:
            return False
        seen = np.array([slot for slot in gone if slot in self._last_seen], np.int64)
        if len(seen):
            columns.extend(effects.rows, "keys_last_used", columns.last_used(self._state, seen, self._last_seen))
        at = np.array(gone, np.int64)
        columns.extend(effects.rows, "evictions", columns.evictions(self._state, at, watermark_us, self.partition))
        self._let_go(gone, effects.rows)
        effects.count(evicted=len(gone))
        return True

    def _let_go(self, gone: Sequence[int], out: Rows) -> None:
        """These keys' state goes; their windows go to `out`."""
        for name in ("minutes", "hours", "sources") if gone else ():
            pool = getattr(self._state, name)
            at = np.flatnonzero((pool.rows["live"] == 1) & np.isin(pool.rows["slot"], gone))
            self._release(name, at, out)
        for slot in gone:
            self._last_seen.pop(slot, None)
            self._state.drop_key(slot)

    def _ours(self, batch: Slice, decoded: Decoded) -> Decoded:
        if not self._partitions:
            return decoded
        return admit.without_strays(batch, decoded, self._state.slots, self._is_home)

    def _is_home(self, key_id: str) -> bool:
        home = PARTITIONERS[self._config.worker.partitioner]
        return home(key_id.encode(), self._partitions) == self.partition

    def _take(self, sides: Sides) -> list[str]:
        changed = self._state.meta.adopt(sides.versions())
        self._sides, self._decider.controls = sides, sides.controls
        if "geo" in changed:
            self._enricher = Enricher(sides.geo, sees_of, life=self._config.key_life)
        if "catalogue" in changed:
            self._state.declare_anew(sides.catalogue.get)
        return changed

    def _tell(self) -> Rows:
        self._untold = False
        return self._adoptions(list(self._state.meta.adopted), self._sides.controls.said)

    def _adoptions(self, names: list[str], said: Sequence[Said]) -> Rows:
        rows: Rows = {}
        place = (self._config.topics.requests, self._epoch, self.partition)
        columns.extend(rows, "adoptions", columns.adoptions(self._state.meta, names, *place))
        columns.extend(rows, "controls", withhold.control_rows(said))
        return rows


WINDOWS = (("minutes", "head_1m", aggregate.MINUTE_US), ("hours", "head_1h", aggregate.HOUR_US))
TABLE_OF = {"minutes": "requests_1m", "hours": "requests_1h", "sources": "key_source_1h"}


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def open_core(partition: int, config: Config, sides: Sides, topic_epoch: str, partitions: int = 0) -> KeyCore:
    """A core that has seen nothing; fill its arrays and blobs and call `restore` to go on from a checkpoint."""
    return KeyCore(partition, config, sides, topic_epoch, partitions)
