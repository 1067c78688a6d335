"""What a key partition tells the others: which key was seen from which network for the first time, and that keys live.

The loop runs over a slice's events before they are judged. A key's use is sighted once per network: a table of marks
remembers what was told, the key's own known networks (`detectors/geography.py`) decide where a mark was overwritten.
A refused request is sighted once per key, source and day, at most `REFUSALS_AN_HOUR` per source: anybody can make up
key ids, and how many more there were changes nothing. A key's beat is its holder's first request in an hour; hours
begin at a moment of each key's own, so that a million keys don't tell at once.
All of it depends on the order of events alone, not on where slices end, but for overwritten marks: then something is
told twice, which who reads it doesn't mind.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import (
    ERROR_401,
    ERROR_403,
    NET_ANYCAST,
    NET_HOSTING,
    NET_KNOWN,
    NET_PRIVATE,
    NET_PROXY,
    SEES_ADDRESS,
    SEES_DENIED,
    UNKNOWN_NETWORKS,
    attested,
)
from detectors.known_values import find
from detectors.places import recent, short
from detectors.records import records
from pipeline.batch import Batch
from pipeline.core import Message
from pipeline.decide import Decisions
from pipeline.state.marks import COUNTERS, MARKS, Marks
from pipeline.times import micros
from schemas.incident import Finding, Incident
from schemas.key_event import KeyEvent
from schemas.sighting import FLEET, Beat, Beats, Break, Kind, Sighting, source_of

Array = np.ndarray[Any, Any]

REFUSALS_AN_HOUR: Final = 64
HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
YOUNG_US: Final = DAY_US
"""Of a key's first day nothing is new, since nothing is known."""
ELSEWHERE: Final = NET_HOSTING | NET_PROXY | NET_ANYCAST
BULK_BITS: Final = 8.0
BULK: Final = ("volume", "data")
USED: Final = 1
FIRST: Final = 2
REFUSED: Final = 3
BEAT: Final = 4
KINDS: Final[dict[int, Kind]] = {USED: "used", FIRST: "first", REFUSED: "refused"}
_json = msgspec.json.Encoder()


@compiled
def whole(number: Any) -> int:
    """A field of 32 bits as a number that nothing turns into a float."""
    return int(np.int64(number))


@compiled
def mixed(a: int, b: int, c: int) -> int:
    """32 bits of three numbers below 2^32, never 0."""
    x = (a * 0x9E3779B1 ^ b * 0x85EBCA6B ^ c * 0xC2B2AE35) & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
    x = (x ^ (x >> 12)) * 0x297A2D39 & 0xFFFFFFFF
    return (x ^ (x >> 15)) or 1


@compiled
def is_told(marks: Any, touched: Any, mark: int) -> bool:
    """Whether this was told before; from now on it is."""
    cell = mark % len(marks)
    if marks[cell].mark == mark:
        return True
    marks[cell].mark = mark
    touched[cell] = True
    return False


@compiled
def may_tell(counters: Any, touched: Any, source: int, hour: int) -> bool:
    """Whether this source's refusals of this hour are still few."""
    cell = source % len(counters)
    counter = counters[cell]
    if counter.source != source or counter.hour != hour:
        counter.source, counter.hour, counter.refusals = source, hour, 0
    if counter.refusals >= REFUSALS_AN_HOUR:
        return False
    counter.refusals += 1
    touched[cell] = True
    return True


@compiled
def is_place(event: Any) -> bool:
    """Whether the event's network has a name."""
    flags = int(event.net_flags)
    known = flags & NET_KNOWN != 0 and flags & NET_PRIVATE == 0
    return known and event.asn != 0 and int(event.sees) & SEES_ADDRESS != 0


@compiled
def kind_of_use(key: Any, event: Any, first_us: int) -> int:
    """USED or FIRST where the key is used from a network that it has not learned, else 0."""
    if not is_place(event) or not attested(event):
        return 0
    state = key.geography
    if find(state.networks, event.asn) >= 0 or recent(state.addresses, short(event.address)):
        return 0
    return FIRST if event.ts_us - first_us < YOUNG_US else USED


@compiled
def is_refusal(event: Any) -> bool:
    """A key named by somebody who does not hold it."""
    denied = event.error in (ERROR_401, ERROR_403)
    return denied and event.authenticated == 0 and int(event.sees) & SEES_DENIED != 0 and event.address != 0


MOST: Final = 3
"""Of one event: a use from where the key is new, a beat, a refusal."""


@compiled
def sight(
    events: Any, keep: Any, first_us: Any, names: Any, prefixes: Any, keys: Any, places: Any, last_us: Any, marks: Any,
    counters: Any, touched: Any, counted: Any, at: Any, kinds: Any,
) -> int:  # fmt: skip
    """Fill `at` and `kinds` (`MOST` records per event); returns how many.

    names[i]: 32 bits of the key's id; prefixes[i]: 64 bits of its address' prefix. places[i]: of its key
    among the slice's; last_us: zeros, one for each of these, filled here with its holder's last request as of event i.
    """
    n = 0
    for i in range(len(events)):
        event = events[i]
        if keep[i] == 0 or event.late == 1:
            continue
        slot, name = whole(event.slot), whole(names[i])
        if slot >= 0:
            kind = kind_of_use(keys[slot], event, first_us[i])
            if kind != 0 and not is_told(marks, touched, mixed(name, whole(event.asn), USED)):
                at[n], kinds[n] = i, kind
                n += 1
            if attested(event):  # else who knows a key's id could keep it alive, or make it steady and stop
                before_us = max(int(keys[slot].spike.last_us), last_us[places[i]])
                last_us[places[i]] = max(before_us, event.ts_us)
                phase_us = name % 3600 * 1_000_000
                if (event.ts_us + phase_us) // HOUR_US > (before_us + phase_us) // HOUR_US:
                    at[n], kinds[n] = i, BEAT
                    n += 1
        if is_refusal(event):
            named = 0 < event.asn < UNKNOWN_NETWORKS
            source = whole(event.asn) if named else mixed(whole(prefixes[i] >> np.uint64(33)), 0, 0)
            mark = mixed(name, source, event.ts_us // DAY_US * 4 + REFUSED)
            hour = event.ts_us // HOUR_US
            if not is_told(marks, touched, mark) and may_tell(counters, counted, source, hour):
                at[n], kinds[n] = i, REFUSED
                n += 1
    return n


def tell(batch: Batch, marks: Marks, keys: Any, keep: Array, first_us: Array, prefixes: Array) -> list[Message]:
    """The sightings and beats of a slice, before it is judged. `keys`: the records of `State.keys`."""
    n = len(batch.events)
    key_ids = batch.told.coded("key_id")
    names = np.array([crc32(key_id.encode()) for key_id in key_ids.values], "u4").take(key_ids.codes)
    at, kinds = np.empty(MOST * n, np.int64), np.empty(MOST * n, np.int64)
    touched, counted = np.zeros(MARKS, np.bool_), np.zeros(COUNTERS, np.bool_)
    last_us = np.zeros(len(key_ids.values), np.int64)
    found = sight(
        records(batch.events), keep, first_us, names, prefixes, records(keys), key_ids.codes, last_us,
        records(marks.marks.data), records(marks.counters.data), touched, counted, at, kinds,
    )  # fmt: skip
    marks.marks.touch(np.flatnonzero(touched))
    marks.counters.touch(np.flatnonzero(counted))
    if not found:
        return []
    pairs = list(zip(at[:found].tolist(), kinds[:found].tolist(), strict=True))
    beats = tuple(Beat(key_ids[i], int(batch.events["ts_us"][i])) for i, kind in pairs if kind == BEAT)
    out = [Message("sightings", FLEET.encode(), _json.encode(Beats(beats=beats[k : k + 1000])))
           for k in range(0, len(beats), 1000)]  # fmt: skip
    for i, kind in pairs:
        if kind in KINDS:
            out += _sighted(batch, i, key_ids[i], kind, int(first_us[i]))
    return out


def _sighted(batch: Batch, i: int, key_id: str, kind: int, first_us: int) -> list[Message]:
    place, declared, ts_us = batch.places[i], batch.declared[i], int(batch.events["ts_us"][i])
    seen = Sighting(
        key_id=key_id, ts_us=ts_us, kind=KINDS[kind], prefix=place.prefix, client_ip=place.text,
        asn=place.asn, network=place.network[:256], country=place.country, elsewhere=place.flags & ELSEWHERE != 0,
        owner=declared.owner if declared else "", client=batch.clients[i][:128],
        known_days=max(0, ts_us - first_us) // DAY_US if first_us else 0,
    )  # fmt: skip
    out = [Message("sightings", source_of(place.asn, place.prefix).encode(), _json.encode(seen))]
    if kind != REFUSED:
        out.append(_key_event(KeyEvent(key_id=seen.key_id, ts_us=seen.ts_us, kind="used", client_ip=place.text)))
    return out


def _key_event(event: KeyEvent) -> Message:
    return Message("key_events", event.key_id.encode(), _json.encode(event))


def tell_decisions(decided: Decisions) -> list[Message]:
    """What the fleet should know of a slice's incidents and errors, and a key's life of its bulk reads."""
    opened = [incident for incident in decided.incidents if incident.change == "opened"]
    out = [Message("sightings", FLEET.encode(), _json.encode(_break(incident))) for incident in opened]
    for key_id, finding, refused in zip(decided.keys, decided.findings, decided.refused, strict=True):
        if finding.family == "outcome":
            out.append(Message("sightings", FLEET.encode(), _json.encode(_odd(key_id, finding, refused))))
        if finding.family in BULK and finding.bits >= BULK_BITS:
            out.append(_key_event(KeyEvent(
                key_id=key_id, ts_us=micros(finding.at), kind="bulk", client_ip=finding.sample.client_ip,
                bits=finding.bits,
            )))  # fmt: skip
    return out


def _odd(key_id: str, finding: Finding, refused: bool) -> Break:
    """Errors alone open few incidents, and in an outage many keys have them."""
    best = finding.sample
    return Break(
        key_id=key_id, ts_us=micros(finding.at), incident_id="", detectors=(finding.detector,),
        route=f"{best.method} {best.route}".strip()[:300], status=best.status, asn=best.asn,
        stranger=refused,
    )  # fmt: skip


def _break(incident: Incident) -> Break:
    best = incident.findings[0].sample if incident.findings else None
    return Break(
        key_id=incident.key_id, ts_us=micros(incident.opened_at), incident_id=incident.incident_id,
        detectors=tuple(dict.fromkeys(finding.detector for finding in incident.findings)),
        route=f"{best.method} {best.route}".strip()[:300] if best else "", status=best.status if best else 0,
        asn=best.asn if best else 0, owner=incident.owner,
    )  # fmt: skip
