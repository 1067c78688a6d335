"""A person's word on an incident, carried into the key's state, once, before the first event after its adoption.

`expected`: the values of its evidence are admitted, the incident closes, and what goes on is learned at once.
`malicious`: nothing of it is learned or adopted, what was adopted of it is forgotten, and it doesn't count in the
calibration; the incident stays open. A word on an incident of long ago changes only what is still there of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from detectors import DETECTORS, feedback
from pipeline import columns
from pipeline.column import constant
from pipeline.control.controls import Controls
from pipeline.core import Effects
from pipeline.enrich import Enricher, hash32
from pipeline.fields import fields_of
from pipeline.state.partition import State
from pipeline.times import micros, rfc3339
from schemas.control import Feedback, Forget, control_id
from schemas.incident import KEY_RULES, Incident

Array = np.ndarray[Any, Any]


def hear(
    state: State, controls: Controls, enricher: Enricher, configs: tuple[Array, ...], partition: int, effects: Effects
) -> list[int]:
    """All feedback that the state does not include yet, in order, on keys that have state here; fills `effects`.

    Returns the slots whose key is to be forgotten: the caller has their windows.
    """
    if state.meta.heard_of(controls.epoch) >= controls.end:
        return []
    told, lines, gone = list[Incident](), list[tuple[int, Feedback | Forget, str]](), list[int]()
    for seq, said in state.meta.unheard(controls):
        slot = state.slots.get(getattr(said, "key_id", ""), -1)
        if isinstance(said, Forget) and slot >= 0:
            lines.append((seq, said, _forgotten(state, slot, told)))
            gone.append(slot)
        elif isinstance(said, Feedback) and slot >= 0 and said.rule in KEY_RULES:
            words = _expected if said.verdict == "expected" else _malicious
            lines.append((seq, said, words(state, slot, said, enricher, configs, told)))
    state.meta.hear(controls.epoch, controls.end)
    columns.extend(effects.rows, "applied", _rows(state, lines, partition))
    columns.extend(effects.rows, "incidents", columns.incidents(told))
    effects.incidents += told
    return gone


def _expected(
    state: State, slot: int, said: Feedback, enricher: Enricher, configs: tuple[Array, ...], told: list[Incident]
) -> str:
    words, rows = list[str](), np.array([slot])
    key, shared = state.keys.data[slot : slot + 1], state.shared.data[:1]
    if said.events:
        count = len(said.events)
        declared = constant(state.declared_of(rows)[0], count)
        events = enricher.columns(fields_of(said.events), [0] * count, declared).columns
        feedback.admit(DETECTORS, configs, key, shared, events)
        words.append(f"admitted {_values(said)}")
    if (incident := state.open.get(slot)) is not None and incident.incident_id == said.incident_id:
        feedback.close(key)
        told.append(_closed(state, slot, incident))
        words.append("closed the incident")
    mine = incident is None or incident.incident_id == said.incident_id  # a word on one lets no other be learned
    if mine and feedback.confirm(key, micros(said.opened_at), state.meta.watermark_us):
        words.append("what goes on is learned from now on")
    _touch(state, rows)
    if said.until:
        words.append(f"excepted until {said.until}")
    return ", ".join(words) or "the incident is long over: nothing of it was left to change"


def _malicious(
    state: State, slot: int, said: Feedback, enricher: Enricher, configs: tuple[Array, ...], told: list[Incident]
) -> str:
    words, opened_us = list[str](), micros(said.opened_at)
    key, shared = state.keys.data[slot : slot + 1], state.shared.data[:1]
    if feedback.condemn(key, opened_us):
        words.append("never adopted")
    values = {"asn": set(said.networks), "country": {_country(each) for each in said.countries}}
    values["client"] = {hash32(each.encode()) for each in said.clients}
    if gone := feedback.forget(DETECTORS, key, values, opened_us):
        words.append(f"forgot {gone} value{'s' if gone > 1 else ''} that had been adopted")
    if feedback.uncount(key, shared, said.rule, opened_us):
        words.append("taken out of the calibration")
    if (incident := state.open.get(slot)) is not None and incident.incident_id == said.incident_id:
        told.append(_labelled(state, slot, incident))
        words.append("the incident stays open")
    _touch(state, np.array([slot]))
    return ", ".join(words) or "the incident is long over: nothing of it was left to change"


def _forgotten(state: State, slot: int, told: list[Incident]) -> str:
    """The open incident ends with its key and says nothing any more; what was done because of it stands."""
    incident = state.open.get(slot)
    if incident is not None:
        told.append(_closed(state, slot, incident, label="", text="the key was erased", findings=()))
    return "forgotten"


def _closed(state: State, slot: int, incident: Incident, **changes: Any) -> Incident:
    said = {"label": "expected", "closed_at": max(incident.last_at, rfc3339(state.meta.watermark_us))} | changes
    closed = msgspec.structs.replace(incident, revision=incident.revision + 1, change="closed", state="closed", **said)
    state.set_incident(slot, None)
    return closed


def _labelled(state: State, slot: int, incident: Incident) -> Incident:
    labelled = msgspec.structs.replace(incident, revision=incident.revision + 1, change="extended", label="malicious")
    state.set_incident(slot, labelled)
    return labelled


def _touch(state: State, rows: Array) -> None:
    state.keys.touch(rows)
    state.shared.dirty[0] = True


def _country(name: str) -> int:
    return ord(name[0]) * 256 + ord(name[1]) if len(name) == 2 else 0


def _values(said: Feedback) -> str:
    counts = ((len(said.networks), "network"), (len(said.clients), "client"), (len(said.operations), "operation"))
    return " and ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in counts if n) or "its requests"


def _rows(state: State, lines: Sequence[tuple[int, Feedback | Forget, str]], partition: int) -> dict[str, list[Any]]:
    n, offset = len(lines), max(state.meta.next_offset, 0)
    return {
        "control_id": [control_id(said) for _, said, _ in lines],
        "seq": [seq for seq, _, _ in lines],
        "key_id": [said.key_id for _, said, _ in lines],
        "incident_id": [getattr(said, "incident_id", "") for _, said, _ in lines],
        "verdict": [getattr(said, "verdict", "forget") for _, said, _ in lines],
        "at": [state.meta.watermark_us] * n,
        "effect": [effect for _, _, effect in lines],
        "partition": [partition] * n,
        "offset": [offset] * n,
        "version": [offset] * n,
    }
