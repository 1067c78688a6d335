"""Columns for ClickHouse from what the core holds. Times: DateTime64 as int us, DateTime as int seconds.

Numbers stay numpy arrays, texts that the core has as codes stay codes (`pipeline/column.py`): a row costs no Python
object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from detectors import DETECTORS
from detectors.detector import UNKNOWN_NETWORKS
from pipeline import aggregate
from pipeline.batch import Batch
from pipeline.column import Coded, Column, Columns, Texts, coded, constant, count, join_rows
from pipeline.core import Rows
from pipeline.decide import Decisions
from pipeline.fields import numbered
from pipeline.geo.provider import Place
from pipeline.source_texts import network_texts
from pipeline.state.partition import CoreMeta, State
from pipeline.times import micros
from schemas.event import OUTCOMES
from schemas.incident import Incident

Array = np.ndarray[Any, Any]

_ERRORS = ("errors_401", "errors_403", "errors_404", "errors_429", "errors_4xx", "errors_5xx")


def requests(batch: Batch, chosen: Array, epoch: str, partition: int, one_in: int) -> Columns:
    """`requests` of the chosen events (ascending indices), each without its query string."""
    n, told, every = len(chosen), batch.told, len(chosen) == len(batch.events)
    number = batch.events if every else batch.events[chosen]
    words = batch.words if every else {name: column.take(chosen) for name, column in batch.words.items()}
    some = None if every else chosen

    return {
        "key_id": told.coded("key_id") if every else told.coded("key_id").take(chosen),
        "ts": number["ts_us"],
        "request_id": told.texts("request_id", some),
        "method": words["method"],
        "route": words["route"],
        "path": told.texts("path", some),
        "status": number["status"],
        "outcome": Coded(number["outcome"], OUTCOMES),
        "client_ip": words["client_ip"],
        "country": words["country"],
        "asn": asns(number["asn"]),
        "client": words["client"],
        "user_agent": words["user_agent"],
        "fingerprint": told.texts("fingerprint", some),
        "latency_ms": number["latency_ms"],
        "bytes_in": number["bytes_in"],
        "bytes_out": number["bytes_out"],
        "environment": words["environment"],
        "scope": words["scope"],
        "late": number["late"],
        "one_in": np.full(n, one_in),
        "epoch": constant(epoch, n),
        "partition": np.full(n, partition),
        "offset": number["offset"],
    }


def _part(rows: Array, epoch: str, partition: int) -> Texts:
    return numbered(f"{epoch}/{partition}/", rows["first_offset"])


def _key_ids(state: State, slots: Array) -> Coded[str]:
    used, codes = np.unique(slots, return_inverse=True)
    return Coded(codes.reshape(-1), [state.identities.key_ids[slot] for slot in used.tolist()])


def _counts(rows: Array) -> Columns:
    columns: dict[str, Column] = {"requests": rows["requests"]}
    columns |= {name: rows["errors"][:, k + 1] for k, name in enumerate(_ERRORS)}
    return columns | {"bytes_in": rows["bytes_in"], "bytes_out": rows["bytes_out"]}


def windows(state: State, rows: Array, epoch: str, partition: int) -> Columns:
    """`requests_1m` or `requests_1h` from `aggregate.WINDOW` records."""
    names = ["", *(detector.name for detector in DETECTORS)]
    return {
        "key_id": _key_ids(state, rows["slot"]),
        "window_start": rows["start_us"] // 1_000_000,
        "part": _part(rows, epoch, partition),
        "version": rows["last_offset"],
        **_counts(rows),
        "latency_sum_ms": rows["latency_sum_ms"],
        "latency_max_ms": rows["latency_max_ms"],
        "latency_counts": rows["latency"],
        "addresses": aggregate.distinct(rows["addresses"]),
        "countries": aggregate.distinct(rows["countries"].reshape(-1, 1)),
        "routes": aggregate.distinct(rows["routes"]),
        "first_ts": rows["first_us"],
        "last_ts": rows["last_us"],
        "top_bits": rows["top_bits"],
        "top_detector": Coded(rows["top_detector"], names),
    }


def country_text(packed: int) -> str:
    """Two letters from `detectors.detector.EVENT`'s country; "" for 0."""
    return chr(packed >> 8) + chr(packed & 255) if packed else ""


def asns(networks: Array) -> Array:
    """Numbers of networks as rows say them: 0 is not known."""
    return np.where(networks < UNKNOWN_NETWORKS, networks, 0)


def sources(state: State, rows: Array, epoch: str, partition: int) -> Columns:
    """`key_source_1h` from `aggregate.SOURCE` records."""
    return {
        "key_id": _key_ids(state, rows["slot"]),
        "window_start": rows["start_us"] // 1_000_000,
        "prefix": network_texts(rows["network"]),
        "asn": asns(rows["asn"]),
        "country": coded(rows["country"].tolist()).map(country_text),
        "client": state.source_texts.texts(rows["client_text"]),
        "route": state.source_texts.texts(rows["route_text"]),
        "outcome": Coded(rows["outcome"], OUTCOMES),
        "part": _part(rows, epoch, partition),
        "version": rows["last_offset"],
        **_counts(rows),
        "first_ts": rows["first_us"],
        "last_ts": rows["last_us"],
    }


def findings(decided: Decisions, epoch: str, partition: int) -> Columns:
    """`findings`: one row per detector's surprise, with the incident that it belongs to."""
    found = decided.findings
    n = len(found)
    return {
        "finding_id": list(decided.ids),
        "incident_id": list(decided.linked),
        "key_id": list(decided.keys),
        "at": [micros(f.at) for f in found],
        "detector": [f.detector for f in found],
        "family": [f.family for f in found],
        "bits": [f.bits for f in found],
        "observed": [f.observed for f in found],
        "low": [f.expected.low for f in found],
        "median": [f.expected.median for f in found],
        "high": [f.expected.high for f in found],
        "text": [f.text for f in found],
        "sample": [msgspec.json.encode(f.sample).decode() for f in found],
        "epoch": [epoch] * n,
        "partition": [partition] * n,
        "version": list(decided.offsets),
    }


def findings_of(incidents: Sequence[Incident], epoch: str, partition: int) -> Columns:
    """`findings` of incidents that no single event of a key brought: each is named by its incident."""
    decided = Decisions()
    for incident in incidents:
        for number, finding in enumerate(incident.findings):
            decided.findings.append(finding)
            decided.keys.append(incident.key_id)
            decided.ids.append(f"{incident.incident_id}-{finding.detector}-{number}")
            decided.linked.append(incident.incident_id)
            decided.offsets.append(incident.offset)
    return findings(decided, epoch, partition)


def incidents(revisions: Sequence[Incident]) -> Columns:
    """`incidents`: every revision is written, the highest stays."""
    return {
        "incident_id": [x.incident_id for x in revisions],
        "key_id": [x.key_id for x in revisions],
        "rule": [x.rule for x in revisions],
        "revision": [x.revision for x in revisions],
        "state": [x.state for x in revisions],
        "severity": [x.severity for x in revisions],
        "opened_at": [micros(x.opened_at) for x in revisions],
        "last_at": [micros(x.last_at) for x in revisions],
        "closed_at": [micros(x.closed_at) if x.closed_at else None for x in revisions],
        "bits": [x.bits for x in revisions],
        "return_period_days": [x.return_period_days for x in revisions],
        "text": [x.text for x in revisions],
        "rung": [x.rung for x in revisions],
        "environment": [x.environment for x in revisions],
        "owner": [x.owner for x in revisions],
        "role": [x.role for x in revisions],
        "events": [x.events for x in revisions],
        "detectors": [sorted({f.detector for f in x.findings}) for x in revisions],
        "body": [msgspec.json.encode(x).decode() for x in revisions],
        "version": [x.revision for x in revisions],
    }


MOST_TIES: Final = 4_095


def last_used(state: State, slots: Array, seen: dict[int, tuple[Place, str]]) -> Columns:
    """`keys_last_used` of these slots; seen: slot -> (place, environment) of its newest event.

    Refused requests in a key's name are no use. The version is last_us and, in 12 more bits, which of the events at
    that time it is: times end below 2^52 us.
    """
    book = state.book.data[slots]
    last = [seen[slot] for slot in slots.tolist()]
    return {
        "key_id": _key_ids(state, slots),
        "last_used": book["last_us"],
        "first_used": book["first_us"],
        "client_ip": [place.text for place, _ in last],
        "country": [place.country for place, _ in last],
        "asn": [place.asn for place, _ in last],
        "environment": [environment for _, environment in last],
        "version": (book["last_us"].astype(np.uint64) << np.uint64(12)) | np.minimum(book["ties"], MOST_TIES),
    }


MOST_AGAIN: Final = 1024
"""Adoptions of an input at one offset: the later one must win though the earlier one's row may come later."""


def adoptions(meta: CoreMeta, names: list[str], topic: str, epoch: str, partition: int) -> Columns:
    """`adoptions` of these side inputs: from which offset on which version judged."""
    n, first = len(names), [meta.adopted[name] for name in names]
    return {
        "topic": [topic] * n,
        "epoch": [epoch] * n,
        "partition": [partition] * n,
        "offset": first,
        "input": names,
        "version_id": [getattr(meta, name) for name in names],
        "version": [
            at * MOST_AGAIN + min(meta.again.get(name, 0), MOST_AGAIN - 1)
            for at, name in zip(first, names, strict=True)
        ],
    }


def evictions(state: State, slots: Array, watermark_us: int, partition: int) -> Columns:
    """`evictions` of these keys, before their state goes."""
    last_us, n = state.book.data["last_us"][slots], len(slots)
    return {
        "key_id": _key_ids(state, slots),
        "at": [watermark_us] * n,
        "last_used": last_us,
        "partition": [partition] * n,
        "version": last_us,
    }


def extend(rows: Rows, table: str, columns: Columns) -> None:
    """Add columns to the table's rows; nothing where there are none."""
    if count(columns):
        rows[table] = join_rows([rows[table], columns]) if table in rows else columns
