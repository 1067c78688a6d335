"""Columns for ClickHouse from what the core holds. Times: DateTime64 as int us, DateTime as int seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from detectors import DETECTORS
from pipeline import aggregate
from pipeline.batch import Batch
from pipeline.core import Rows
from pipeline.decide import Decisions
from pipeline.state import State
from schemas.event import OUTCOMES
from schemas.incident import Incident

Array = np.ndarray[Any, Any]
Columns = dict[str, list[Any]]

_ERRORS = ("errors_401", "errors_403", "errors_404", "errors_429", "errors_4xx", "errors_5xx")


def requests(batch: Batch, chosen: Sequence[int], epoch: str, partition: int, one_in: int) -> Columns:
    """`requests` of the chosen events, each without its query string."""
    source = [batch.source[i] for i in chosen]
    places = [batch.places[i] for i in chosen]
    number = batch.events[np.asarray(chosen, np.int64)]
    n = len(source)
    return {
        "key_id": [e.key_id for e in source],
        "ts": number["ts_us"].tolist(),
        "request_id": [e.request_id for e in source],
        "method": [e.method for e in source],
        "route": [batch.routes[i] for i in chosen],
        "path": [e.path for e in source],
        "status": number["status"].tolist(),
        "outcome": [OUTCOMES[o] for o in number["outcome"].tolist()],
        "client_ip": [p.text for p in places],
        "country": [p.country for p in places],
        "asn": number["asn"].tolist(),
        "client": [batch.clients[i] for i in chosen],
        "user_agent": [e.user_agent for e in source],
        "latency_ms": number["latency_ms"].tolist(),
        "bytes_in": number["bytes_in"].tolist(),
        "bytes_out": number["bytes_out"].tolist(),
        "environment": [e.environment for e in source],
        "scope": [e.scope for e in source],
        "late": number["late"].tolist(),
        "one_in": [one_in] * n,
        "epoch": [epoch] * n,
        "partition": [partition] * n,
        "offset": number["offset"].tolist(),
    }


def _part(rows: Array, epoch: str, partition: int) -> list[str]:
    return [f"{epoch}/{partition}/{offset}" for offset in rows["first_offset"].tolist()]


def _key_ids(state: State, slots: Array) -> list[str]:
    identity = state.identity
    return [identity[slot].key_id for slot in slots.tolist()]


def _counts(rows: Array) -> Columns:
    columns = {"requests": rows["requests"].tolist()}
    columns |= {name: rows["errors"][:, k + 1].tolist() for k, name in enumerate(_ERRORS)}
    return columns | {"bytes_in": rows["bytes_in"].tolist(), "bytes_out": rows["bytes_out"].tolist()}


def windows(state: State, rows: Array, epoch: str, partition: int) -> Columns:
    """`requests_1m` or `requests_1h` from `aggregate.WINDOW` records."""
    names = ["", *(detector.name for detector in DETECTORS)]
    return {
        "key_id": _key_ids(state, rows["slot"]),
        "window_start": (rows["start_us"] // 1_000_000).tolist(),
        "part": _part(rows, epoch, partition),
        "version": rows["last_offset"].tolist(),
        **_counts(rows),
        "latency_sum_ms": rows["latency_sum_ms"].tolist(),
        "latency_max_ms": rows["latency_max_ms"].tolist(),
        "latency_counts": rows["latency"].tolist(),
        "addresses": aggregate.distinct(rows["addresses"]).tolist(),
        "countries": aggregate.distinct(rows["countries"].reshape(-1, 1)).tolist(),
        "routes": aggregate.distinct(rows["routes"]).tolist(),
        "first_ts": rows["first_us"].tolist(),
        "last_ts": rows["last_us"].tolist(),
        "top_bits": rows["top_bits"].tolist(),
        "top_detector": [names[k] for k in rows["top_detector"].tolist()],
    }


def country_text(packed: int) -> str:
    """Two letters from `detectors.detector.EVENT`'s country; "" for 0."""
    return chr(packed >> 8) + chr(packed & 255) if packed else ""


def sources(state: State, rows: Array, epoch: str, partition: int) -> Columns:
    """`key_source_1h` from `aggregate.SOURCE` records."""
    return {
        "key_id": _key_ids(state, rows["slot"]),
        "window_start": (rows["start_us"] // 1_000_000).tolist(),
        "prefix": [text.decode() for text in rows["prefix"].tolist()],
        "asn": rows["asn"].tolist(),
        "country": [country_text(packed) for packed in rows["country"].tolist()],
        "client": [text.decode("utf-8", "ignore") for text in rows["client"].tolist()],
        "route": [text.decode("utf-8", "ignore") for text in rows["route"].tolist()],
        "outcome": [OUTCOMES[o] for o in rows["outcome"].tolist()],
        "part": _part(rows, epoch, partition),
        "version": rows["last_offset"].tolist(),
        **_counts(rows),
        "first_ts": rows["first_us"].tolist(),
        "last_ts": rows["last_us"].tolist(),
    }


def micros(text: str) -> int:
    """RFC 3339 as this project writes it (six digits, Z) to microseconds."""
    return int(np.datetime64(text[:-1], "us").astype(np.int64))


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


def last_used(state: State, slots: Array, seen: dict[int, tuple[str, str, int, str]]) -> Columns:
    """`keys_last_used` of these slots; seen: slot -> (address, country, asn, environment) of its newest event."""
    book = state.book.data[slots]
    last = [seen[slot] for slot in slots.tolist()]
    return {
        "key_id": _key_ids(state, slots),
        "last_used": book["last_us"].tolist(),
        "first_used": book["first_us"].tolist(),
        "client_ip": [x[0] for x in last],
        "country": [x[1] for x in last],
        "asn": [x[2] for x in last],
        "environment": [x[3] for x in last],
        "version": book["last_us"].tolist(),
    }


def extend(rows: Rows, table: str, columns: Columns) -> None:
    """Add columns to the table's rows; nothing where there are none."""
    if not columns or not next(iter(columns.values())):
        return
    if table not in rows:
        rows[table] = columns
        return
    for name, values in columns.items():
        rows[table][name].extend(values)
