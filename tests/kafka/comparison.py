"""What every fault test ends with: the offsets are at the log's end, no worker took more memory than it may, and all
that came out is what one clean pass over the log gives.

Of the counting core these are state, incidents and the newest row of each key; of the real one incidents and all tables
(FINAL); where a responder runs, `tests/kafka/whole.py` adds the decisions and their audit.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import msgspec

from pipeline.config.tree import Config
from pipeline.core import Rows, Sides
from pipeline.flow import open_core
from pipeline.records import of_records
from pipeline.rows import append_rows
from pipeline.sinks.topics import topic_id
from schemas.incident import Incident
from tests.kafka.deployment import Deployment, Outcome, read_topic
from tests.kafka.outside import WORKERS, Outside
from tests.pipeline.log_of_requests import GEO, catalogue

MOST_MB: Final = {"counting": 300.0, "real": 900.0}
"""Highest resident size that a worker may reach, with either core (compiled code included)."""

SidesAt = Callable[[int, int], Sides]
"""(partition, offset) -> the side inputs that the record there is judged with."""


@dataclass
class Clean:
    """What one pass brings about; incidents in the order of their partition's log."""

    incidents: list[Incident] = field(default_factory=list)
    rows: Rows = field(default_factory=dict)

    def messages(self) -> set[bytes]:
        """As they stand on their topic."""
        return {msgspec.json.encode(incident) for incident in self.incidents}


_STILL: Final = Sides(catalogue(), GEO, "test")


def same_sides(partition: int, offset: int) -> Sides:
    """Those of `run_worker`'s real core."""
    return _STILL


def clean_pass(deployment: Deployment, sides_at: SidesAt = same_sides) -> Clean:
    """One core per partition over the whole log, in one slice for each version of the side inputs."""
    config, clean = deployment.config, Clean()
    epoch = asyncio.run(topic_id(config.kafka, config.topics.requests))
    by_partition: dict[int, list[Any]] = {}
    for record in asyncio.run(read_topic(config, config.topics.requests)):
        by_partition.setdefault(record.partition, []).append(record)
    for number, records in sorted(by_partition.items()):
        _pass_over(number, records, config, epoch, deployment.partitions, sides_at, clean)
    return clean


def _pass_over(
    number: int, records: list[Any], config: Config, epoch: str, partitions: int, sides_at: SidesAt, clean: Clean
) -> None:
    core = open_core(number, config, sides_at(number, 0), epoch, partitions)
    for _, group in groupby(records, key=lambda record: id(sides_at(number, record.offset))):
        run = list(group)
        append_rows(clean.rows, core.adopt(sides_at(number, run[0].offset)))
        effects = core.process(of_records(run).part("", number, 0, len(run)))
        clean.incidents += effects.incidents
        append_rows(clean.rows, effects.rows)
    append_rows(clean.rows, core.due_rows())


def stop_all(deployment: Deployment, *workers: subprocess.Popen[bytes]) -> None:
    """These end well, and have stayed within their memory."""
    for worker in workers:
        used_mb = deployment.most_memory_mb(worker)
        assert used_mb < MOST_MB[deployment.core], f"{used_mb:.0f} MB: {deployment.log_of(worker)[-2000:]}"
        assert deployment.stop(worker) == 0, deployment.log_of(worker)


def at_the_end(deployment: Deployment) -> None:
    """Commits and state reach to the log's end."""
    assert deployment.committed() == deployment.manifests() == deployment.ends()


def compare_counts(deployment: Deployment, *workers: subprocess.Popen[bytes]) -> None:
    """The counting core's: these workers are stopped, then all equals the truth."""
    stop_all(deployment, *workers)
    at_the_end(deployment)
    assert_equal(deployment.seen(), deployment.truth())


def assert_equal(seen: Outcome, truth: Outcome) -> None:
    """Tells what differs, where something does."""
    for name in ("counts", "incidents", "rows"):
        ours, theirs = getattr(seen, name), getattr(truth, name)
        wrong = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
        assert not wrong, f"{name}: {len(wrong)} of {len(theirs)} differ: {dict(list(wrong.items())[:20])}"


def finish_counts(deployment: Deployment) -> None:
    """A worker without a fault ends the work; then all equals the truth."""
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    compare_counts(deployment, worker)


def compare_tables(deployment: Deployment, outside: Outside, *workers: subprocess.Popen[bytes]) -> None:
    """The real core's: these workers are stopped, then all equals a clean pass."""
    stop_all(deployment, *workers)
    assert_clean(deployment, outside, clean_pass(deployment))


def finish_tables(deployment: Deployment, outside: Outside) -> None:
    """A worker without a fault ends the work; then all equals a clean pass."""
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    compare_tables(deployment, outside, worker)


def assert_clean(deployment: Deployment, outside: Outside, clean: Clean) -> None:
    """Offsets, incidents and tables."""
    at_the_end(deployment)
    published = deployment.run(read_topic(deployment.config, deployment.config.topics.incidents))
    found, true = {record.value for record in published}, clean.messages()
    more, less = sorted(map(_mark, found - true)), sorted(map(_mark, true - found))
    assert found == true, f"{len(more)} incidents that should not be, as {more[:8]}; {len(less)} missing, as {less[:8]}"
    outside.write_clean(clean.rows)
    for name in WORKERS:
        if outside.digest(outside.config, name) != outside.digest(outside.clean, name):
            raise AssertionError(f"{name}: {_difference(outside, name)}")
    assert outside.query("SELECT count() FROM requests FINAL", outside.clean)[0][0] > 100


def _mark(message: bytes) -> tuple[str, str, int, int, int, str, str]:
    """What tells one message of an incident from another, to be looked at."""
    each = msgspec.json.decode(message, type=Incident)
    mark = each.incident_id[:8], each.key_id, each.partition, each.offset, each.revision, each.change
    return (*mark, f"{each.label}/{each.geo_build[:15]}/{each.config_version}")


def _difference(outside: Outside, name: str) -> str:
    mine, true = (set(map(repr, outside.table(config, name))) for config in (outside.config, outside.clean))
    more, less = sorted(mine - true), sorted(true - mine)
    return f"{len(more)} rows that should not be, as {more[:2]}; {len(less)} missing, as {less[:2]}"
