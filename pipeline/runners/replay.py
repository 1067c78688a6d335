"""`keywatch replay`: files or a range of a topic through the very same core, with all effects off.

Writes `incidents.jsonl`, `findings.jsonl` and `requests_1m.jsonl`, sorted, so that the same input gives the same bytes
whatever the slices were; prints a summary. There is no broker, no ClickHouse and nobody who could act.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from pipeline import moments, private
from pipeline.asking.answers import printable
from pipeline.column import Columns, plain
from pipeline.config.file import load
from pipeline.config.tree import Config
from pipeline.core import Effects, Sides, Slice
from pipeline.errors import ConfigError, Fatal
from pipeline.flow import KeyCore, open_core
from pipeline.formats import FORMATS, Refused
from pipeline.geo.provider import open_geo
from pipeline.history import ordered
from pipeline.intake.run import options_of
from pipeline.keys.catalogue import Catalogue, load_file
from pipeline.partitioner import PARTITIONERS
from pipeline.progress import counted
from pipeline.runners import topic_range
from pipeline.runners.adopting import ADOPTED, NOTHING_DUE, Due, adopted, due_of
from pipeline.runners.compare import Comparison, compare
from pipeline.runners.compare import show as show_comparison
from pipeline.runners.compare import summary as comparison_summary
from pipeline.runners.parts import config_version
from pipeline.runners.topic_range import Raw
from pipeline.times import micros
from pipeline.warm import warm_up
from schemas.event import Event
from schemas.incident import Incident

SLICE_EVENTS = 1000
EPOCH = "replay"
KEY_FROM = ("", "user", "address")


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of `keywatch replay`. Paths or a topic, never both; `from_`/`to`: RFC 3339 times."""

    paths: tuple[Path, ...] = ()
    format: str = "native"
    keys: Path | None = None
    config: Path | None = None
    out: Path | None = None
    json: bool = False
    key_from: str = ""
    partitions: int = 1
    partitioner: str = "murmur2"
    topic: str = ""
    from_: str = ""
    to: str = ""
    against: Path | None = None
    controls: str = ""  # a file of controls, or `adopted`: as the worker took them up, with a topic
    slice_events: int = SLICE_EVENTS


@dataclass
class Outcome:
    """What a replay found; lines are JSON, unsorted until `write`."""

    events: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    incidents: dict[str, Incident] = field(default_factory=dict)
    finding_lines: list[tuple[Any, ...]] = field(default_factory=list)
    window_lines: list[tuple[Any, ...]] = field(default_factory=list)
    comparison: Comparison | None = None
    keys: int = 0
    declared: int = 0  # of these
    first_us: int = 0
    last_us: int = 0
    seconds: float = 0.0
    key_days: float = 0.0  # from each key's first event to its last
    withheld: int = 0

    def take(self, effects: Effects) -> None:
        """Add one slice's effects."""
        self.counts.update(effects.counts)
        self.rejected.update(reject.reason for reject in effects.rejects)
        for incident in effects.incidents:
            self.incidents[incident.incident_id] = incident
        findings = effects.rows.get("findings", {})
        if times := plain(effects.rows.get("requests", {}).get("ts", [])):
            self.first_us = min(self.first_us or times[0], min(times))
            self.last_us = max(self.last_us, max(times))
        self.findings.update(plain(findings.get("detector", [])))
        self.withheld += plain(effects.rows.get("withheld", {}).get("change", [])).count("opened")
        self.finding_lines += _lines(findings, FINDING_ORDER)
        self.window_lines += _lines(effects.rows.get("requests_1m", {}), WINDOW_ORDER)

    def summary(self) -> dict[str, Any]:
        """The numbers of the run, as `--json` prints them."""
        return {
            "events": self.events,
            "rejected": dict(sorted(self.rejected.items())),
            "repeated": self.counts["duplicates"],
            "late": self.counts["late"],
            "keys": self.keys,
            "declared": self.declared,
            "findings": dict(sorted(self.findings.items())),
            "incidents": len(self.incidents),
            "withheld": self.withheld,
            "span_s": round((self.last_us - self.first_us) / 1e6, 3),
            "seconds": round(self.seconds, 3),
            "events_per_s": round(self.events / self.seconds) if self.seconds else 0,
        }


FINDING_ORDER = ("at", "key_id", "detector", "finding_id")
WINDOW_ORDER = ("window_start", "key_id", "part")


def _lines(columns: Columns, order: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Rows as (sort key..., JSON line)."""
    if not columns:
        return []
    encode = msgspec.json.encode
    names = tuple(columns)
    at = [names.index(name) for name in order]
    return [
        (*(row[i] for i in at), encode(dict(zip(names, row, strict=True))))
        for row in zip(*map(plain, columns.values()), strict=True)
    ]


def incident_line(incident: Incident) -> bytes:
    """One line of `incidents.jsonl`: what an incident says, without what depends on where it was judged."""
    findings = [
        {
            "detector": f.detector,
            "bits": f.bits,
            "at": f.at,
            "observed": f.observed,
            "expected": f.expected,
            "text": f.text,
        }
        for f in incident.findings
    ]
    return msgspec.json.encode(
        {
            "incident_id": incident.incident_id, "key_id": incident.key_id, "opened_at": incident.opened_at,
            "last_at": incident.last_at, "severity": incident.severity, "bits": incident.bits, "text": incident.text,
            "findings": findings, "rung": incident.rung,
        }
    )  # fmt: skip


def write(outcome: Outcome, folder: Path) -> None:
    """The three files, each sorted."""
    try:
        private.folder(folder)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
    incidents = sorted(outcome.incidents.values(), key=lambda x: (x.opened_at, x.key_id, x.incident_id))
    for name, lines in (
        ("incidents", [incident_line(incident) for incident in incidents]),
        ("findings", [row[-1] for row in sorted(outcome.finding_lines)]),
        ("requests_1m", [row[-1] for row in sorted(outcome.window_lines)]),
    ):
        private.write(folder / f"{name}.jsonl", b"".join(line + b"\n" for line in lines))


class Replay:
    """The cores of all partitions and the slices that are filling up."""

    def __init__(
        self, config: Config, sides: Sides, partitions: int, partitioner: str, slice_events: int, epoch: str = EPOCH,
        due: Due = NOTHING_DUE,
    ) -> None:  # fmt: skip
        """`due`: when which side inputs are adopted; `sides` are those before that."""
        self._due = due.begin(sides)
        self._catalogue = sides.catalogue
        self.outcome = Outcome()
        self._home = PARTITIONERS[partitioner]
        self._epoch = epoch
        known = 0 if epoch == EPOCH else partitions  # files: every event is put where it belongs
        self.cores: list[KeyCore] = [open_core(p, config, sides, epoch, known) for p in range(partitions)]
        self._slice_events = slice_events
        self._waiting: list[list[Raw]] = [[] for _ in range(partitions)]
        self._sent = [0] * partitions

    def feed(self, event: Event) -> None:
        """The event goes where its producer would have put it, with its own time as the record's.

        Rounded up: a record's time before its event's would hold the watermark back by up to 1 ms, and intake's never
        does.
        """
        key = event.key_id.encode()
        partition = self._home(key, len(self.cores))
        offset, self._sent[partition] = self._sent[partition], self._sent[partition] + 1
        self.feed_record(Raw(partition, offset, key, msgspec.json.encode(event), -(-event.ts_us // 1000)))

    def feed_keyed(self, record: Raw) -> None:
        """A record of another topic, which may have had another number of partitions: it goes where its key belongs."""
        if not record.tick and record.key is not None:
            partition = self._home(record.key, len(self.cores))
            offset, self._sent[partition] = self._sent[partition], self._sent[partition] + 1
            self.feed_record(Raw(partition, offset, record.key, record.value, record.timestamp_ms))

    def adopt(self, partition: int, sides: Sides) -> None:
        """Judge what follows in this partition with these side inputs, as a worker does at a checkpoint."""
        if self._waiting[partition]:
            self._run(partition)
        self._catalogue = sides.catalogue
        self.cores[partition].adopt(sides)

    def feed_record(self, record: Raw) -> None:
        """The next record of its partition's log."""
        for sides in self._due.due(record):
            self.adopt(record.partition, sides)
        waiting = self._waiting[record.partition]
        waiting.append(record)
        if len(waiting) >= self._slice_events:
            self._run(record.partition)

    def _run(self, partition: int) -> None:
        waiting, self._waiting[partition] = self._waiting[partition], []
        ticks = frozenset(i for i, record in enumerate(waiting) if record.tick)
        batch = Slice(
            self._epoch, partition, [r.offset for r in waiting], [r.key for r in waiting], [r.value for r in waiting],
            [r.timestamp_ms for r in waiting], ticks,
        )  # fmt: skip
        effects = self.cores[partition].process(batch)
        self.outcome.events += len(waiting) - len(ticks) - len(effects.rejects)
        self.outcome.take(effects)

    def finish(self) -> Outcome:
        """Judge what waits, write out what is still open."""
        for partition, core in enumerate(self.cores):
            if self._waiting[partition]:
                self._run(partition)
            self.outcome.take(Effects(rows=core.due_rows()))
            self.outcome.keys += len(core.state.slots)
            self.outcome.declared += sum(self._catalogue.get(key_id) is not None for key_id in core.state.slots)
            self.outcome.key_days += key_days(core)
        return self.outcome


def run(options: ReplayOptions) -> Outcome:
    """Replay as the options say. Raises ConfigError; with a topic also Fatal."""
    _check(options)
    config = load(options.config)
    warm_up()
    return _run_topic(options, config) if options.topic else _run_files(options, config)


def _run_files(options: ReplayOptions, config: Config) -> Outcome:
    catalogue = load_file(options.keys) if options.keys else Catalogue.empty()
    due = due_of(options.controls) if options.controls else NOTHING_DUE
    pair = _pair(options, config, catalogue, options.partitions, EPOCH, due)
    began = time.perf_counter()
    lateness_us = round(config.worker.lateness_s * 1e6)
    read_as = msgspec.structs.replace(options_of(config), key_field=options.key_from)
    records = ordered(options.paths, options.format, read_as, lateness_us)
    for record in counted(records, "replaying", shown=not options.json):
        for replay in pair.replays:
            if isinstance(record, Refused):
                replay.outcome.rejected[record.reason] += 1
            else:
                replay.feed(record)
    return pair.ended(began)


def _run_topic(options: ReplayOptions, config: Config) -> Outcome:
    """As a worker would have judged it that began at the range's start: its partitions, its epoch, its catalogue."""
    for text, option in ((options.from_, "--from"), (options.to, "--to")):
        topic_range.time_ms(text, option)
    topic = topic_range.describe(config, options.topic)
    catalogue = load_file(options.keys) if options.keys else topic_range.declared_keys(config)
    due = adopted(config, topic) if options.controls == ADOPTED else NOTHING_DUE
    due = due_of(options.controls) if options.controls not in ("", ADOPTED) else due
    pair = _pair(options, config, catalogue, topic.partitions, topic.epoch, due)
    began = time.perf_counter()

    async def feed() -> None:
        async for batch in topic_range.read_range(config, topic, options.from_, options.to):
            for record in batch:
                for replay in pair.replays:
                    replay.feed_record(record)

    asyncio.run(feed())
    return pair.ended(began)


@dataclass
class Pair:
    """The replay, and beside it the one of another configuration, if one was named; both are fed every record."""

    replays: list[Replay]
    configs: list[Config]
    catalogue: Catalogue

    def ended(self, began: float) -> Outcome:
        """The first one's outcome, with the comparison."""
        outcomes = [replay.finish() for replay in self.replays]
        outcomes[0].seconds = time.perf_counter() - began
        if len(outcomes) == 2:
            outcomes[0].comparison = compare(
                outcomes[0].incidents, outcomes[1].incidents, (self.configs[0], self.configs[1]), self.catalogue,
                outcomes[0].key_days,
            )  # fmt: skip
        return outcomes[0]


def _pair(options: ReplayOptions, config: Config, catalogue: Catalogue, partitions: int, epoch: str, due: Due) -> Pair:
    configs = [config] if options.against is None else [config, load(options.against)]
    replays = []
    for each in configs:
        version = "replay" if epoch == EPOCH else config_version(each)
        sides = Sides(catalogue, open_geo(each.geo), version)
        replays.append(Replay(each, sides, partitions, options.partitioner, options.slice_events, epoch, due))
    return Pair(replays, configs, catalogue)


def key_days(core: KeyCore) -> float:
    """Days between first and last use, over all keys that have state."""
    book = core.state.book.data[list(core.state.slots.values())]
    return float((book["last_us"] - book["first_us"]).sum()) / 86_400e6


def _check(options: ReplayOptions) -> None:
    if bool(options.paths) == bool(options.topic):
        raise ConfigError("name files or folders to replay, or a --topic: one of the two")
    if options.format not in FORMATS:
        raise ConfigError(f"unknown format '{options.format}'; known are {', '.join(sorted(FORMATS))}")
    if options.partitioner not in PARTITIONERS:
        raise ConfigError(f"unknown partitioner '{options.partitioner}'; known are {', '.join(PARTITIONERS)}")
    if options.key_from not in KEY_FROM and FORMATS[options.format].lines:
        raise ConfigError(f"unknown --key-from '{options.key_from}'; there are user and address, for combined logs")
    if options.partitions < 1:
        raise ConfigError("--partitions must be at least 1")
    if options.controls == ADOPTED and not options.topic:
        raise ConfigError("--controls adopted goes with --topic: files have no offsets; name a file of controls")


def show(outcome: Outcome, console: Console) -> None:
    """The summary for people, then each incident in its own words."""
    table = Table(show_header=False, box=None)
    for name, value in outcome.summary().items():
        text = ", ".join(f"{k} {v:,}" for k, v in value.items()) or "none" if isinstance(value, dict) else f"{value:,}"
        table.add_row(name, text)
    console.print(table)
    for incident in sorted(outcome.incidents.values(), key=lambda x: (x.opened_at, x.incident_id)):
        opened = moments.second_of_us(micros(incident.opened_at))
        console.print(f"[bold]{incident.severity}[/] {opened} ", end=" ", highlight=False)
        console.print(printable(incident.text), highlight=False, markup=False)


def main(options: ReplayOptions) -> int:
    """Run, write and print; 0. Raises ConfigError for wrong options, Fatal where no record could be read."""
    outcome = run(options)
    if options.out is not None:
        write(outcome, options.out)
    compared = outcome.comparison
    if options.json:
        told = outcome.summary() | ({"against": comparison_summary(compared)} if compared else {})
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    else:
        show(outcome, Console())
        if compared is not None:
            show_comparison(compared, str(options.against), Console())
    if outcome.rejected and not outcome.events:
        raise Fatal(_nothing_read(outcome, options))
    return 0


def _nothing_read(outcome: Outcome, options: ReplayOptions) -> str:
    """Why no record was an event, and what to do about it."""
    if set(outcome.rejected) == {"no_key"}:
        where = ", e.g. because nobody logs in: with --key-from address the client address stands for the key"
        return f"no record names a key{where if options.format == 'combined' else ' in the field that has its id'}"
    return "no record was an event; `keywatch doctor --sample FILE` names a log's format (option --format)"
