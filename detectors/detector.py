"""The contract of a detector: scalar functions over one key's record, one visit and one event.

A detector keeps a forecast of one quantity of one key and scores what came by its surprise in bits (design, D3).
Its functions are plain Python over numpy records; `fuse.py` compiles all of them into one pass. With
`NUMBA_DISABLE_JIT=1` the same functions run as ordinary Python: the debugger and the test oracle.

Order per event, fixed by `fuse.py`: settle the visit that ended -> prepare and score every detector -> fuse -> learn.
`score` sees what was learned from EARLIER events only and never writes to state, shared or visit; it fills
`reading`, the evidence. `learn` takes the event into the key's pending part; `settle` runs once when a visit has
ended and moves the pending part into the forecast (weight 1) or drops it (weight 0: an incident was open).
`prepare`, which few have, comes before `score` and keeps in the pending part what is too dear to be worked out twice.
Time is `event.ts_us` (microseconds UTC) and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled

VISIT_GAP_US: Final = 30 * 60 * 1_000_000
"""A visit's events are less than 30 min apart (reference/evidence.md, section 4)."""
VISIT_MAX_US: Final = 60 * 60 * 1_000_000
"""A round-the-clock key never pauses: its visit ends after an hour, so that learning lags by at most that."""

# net_flags of an address
NET_KNOWN: Final = 1  # the database knows its network; without it there is no place and geography abstains
NET_HOSTING: Final = 2
NET_PROXY: Final = 4
NET_ANYCAST: Final = 8
NET_SATELLITE: Final = 16
NET_PRIVATE: Final = 32  # private, documentation, loopback: no place

# what the event's format can say at all (schemas capabilities); a bit missing = the detector is blind
SEES_ADDRESS: Final = 1
SEES_STATUS: Final = 2
SEES_DENIED: Final = 4  # key id is present on 401/403/429
SEES_BYTES: Final = 8
SEES_OUTCOME: Final = 16
SEES_CLIENT: Final = 32
SEES_ROUTE: Final = 64

ERROR_NONE: Final = 0
ERROR_401: Final = 1
ERROR_403: Final = 2
ERROR_404: Final = 3
ERROR_429: Final = 4
ERROR_OTHER_4XX: Final = 5
ERROR_5XX: Final = 6

# what an operation does: class of (method, route), by `pipeline/operations.py`
OPERATION_UNKNOWN: Final = 0
OPERATION_READ: Final = 1
OPERATION_WRITE: Final = 2
OPERATION_DELETE: Final = 3
OPERATION_ADMIN: Final = 4  # users, roles, policies, settings, billing
OPERATION_CREDENTIAL: Final = 5  # keys, tokens, secrets, exports of them
OPERATION_IDENTITY: Final = 6  # "who am I": what a thief asks first
OPERATIONS: Final = 7

# how an event breaks what the catalogue declares of its key; bits of EVENT.declared
DECLARED_DECOY: Final = 1
DECLARED_ENDED: Final = 2  # status revoked or expired
DECLARED_SUSPENDED: Final = 4
DECLARED_TEST_LIVE: Final = 8  # a test key does live work
DECLARED_LIVE_TEST: Final = 16  # a live key is used where tests run
DECLARED_READ_ONLY: Final = 32  # a read-only key writes
DECLARED_SCOPE: Final = 64  # a scope that was not granted
DECLARED_NETWORK: Final = 128  # outside its allowed networks
DECLARED_COUNTRY: Final = 256
DECLARED_OVERAGE: Final = 512  # older than its rotation period
DECLARED_SUPERSEDED: Final = 2048  # another key has replaced it, and the overlap is over
DECLARED_LEAKED: Final = 1024  # its secret is known to be public; `leaked_h` says since when

EVENT: Final = np.dtype(
    [
        ("ts_us", "i8"),
        ("offset", "i8"),  # of its record; the index within it does not matter here
        ("bytes_in", "i8"),
        ("bytes_out", "i8"),
        ("address", "u8"),  # 64-bit hash of the client address; 0 is none
        ("request", "u8"),  # 64-bit hash of the request id or of the event's canonical bytes; never 0
        ("slot", "i4"),  # of the key's record; -1: the key has no state (not admitted)
        ("asn", "u4"),  # UNKNOWN_NETWORKS + country where the database knows no more; 0: not even that
        ("client", "u4"),  # hash of the user-agent family; 0 is none
        ("fingerprint", "u4"),  # hash of the connection's TLS fingerprint; 0 is none
        ("route", "u4"),  # hash of method and route template; 0 is none
        ("object", "u4"),  # hash of the path as it was asked for; 0 is none
        ("latency_ms", "f4"),
        ("lat", "f4"),  # degrees, of the country's or city's centre
        ("lon", "f4"),
        ("accuracy_km", "f4"),
        ("country", "u2"),  # ord(first letter) * 256 + ord(second); 0 is none
        ("status", "u2"),
        ("utc_hour", "i2"),  # hour of the week in UTC, Monday 00h is 0
        ("local_hour", "i2"),  # hour of the week in the key's declared zone; -1: no zone declared
        ("declared", "u2"),  # DECLARED_*: what of its key's declaration it breaks
        ("leaked_h", "u2"),  # with DECLARED_LEAKED: hours since the epoch modulo 65,536
        ("outcome", "u1"),  # index into schemas.event.OUTCOMES
        ("authenticated", "u1"),  # 1: the gateway attests that the caller held the key
        ("method", "u1"),  # index into schemas.event.METHODS
        ("error", "u1"),  # ERROR_*
        ("net_flags", "u1"),  # NET_*
        ("sees", "u1"),  # SEES_*
        ("in_hours", "i1"),  # declared business hours: 1 inside, 0 outside, -1 none declared
        ("late", "u1"),  # 1: beyond the lateness; counted, not scored
        ("live", "u1"),  # environment: 0 unknown, 1 live, 2 test
        ("operation", "u1"),  # OPERATION_*
        ("version", "u1"),  # major version of the client, at most 255; 0: it says none
        ("pad", "u1"),
    ],
    align=True,
)
"""One enriched event; times in us UTC. `align` keeps numba's loads plain."""

VISIT: Final = np.dtype(
    [
        ("start_us", "i8"),  # 0: the key has never been seen
        ("last_us", "i8"),
        ("first_seen_us", "i8"),  # of the key
        ("ordinal", "u4"),  # visits ended so far in which an authenticated event came
        ("events", "u4"),  # of this visit
        ("new_place", "u1"),  # geography found the network or country new in this visit
        ("tainted", "u1"),  # an incident was open at some event of this visit: nothing of it is learned
        ("confirmed", "u1"),  # an authenticated event came in this visit
        ("teaches", "u1"),  # whether it counts among peers (`teaching`)
        ("anew", "u1"),  # what is usual may grow freely: it was adopted (`fusion.begins_anew`)
        ("pad", "u1", (3,)),
    ],
    align=True,
)
"""The running visit of one key; kept by `fuse.py`, read by detectors."""

READING: Final = np.dtype(
    [
        ("bits", "f8"),  # rounded to 1/64; 0 is nothing odd
        ("lr_stranger", "f8"),  # log2 likelihood ratio under "somebody else uses the key"; 0 says nothing
        ("lr_insider", "f8"),  # log2 likelihood ratio under "the holder abuses it"
        ("lr_stranger_slow", "f8"),  # what adds up over days in the slow rule, a fact once; 0 adds nothing
        ("observed", "f8"),
        ("low", "f8"),  # middle 90 % of the forecast
        ("median", "f8"),
        ("high", "f8"),
        ("a", "f8"),  # the detector's own, for its words (`explain`)
        ("b", "f8"),
        ("covered", "u1"),  # 0: the detector is blind or abstains at this event; never counted as quiet
        ("proof", "u1"),  # 1: no matter of chance; opens an incident whatever the budget
        ("pad", "u1", (6,)),
    ],
    align=True,
)
"""What one detector says of one event. `score` gets it zeroed."""


@compiled
def tells(reading: Any) -> bool:
    """Whether `fuse` may tell of it; else nobody reads the band, which takes longer than the bits."""
    return reading.bits > 0.0 or max(reading.lr_stranger, reading.lr_insider, reading.lr_stranger_slow) > 0.0


@compiled
def attested(event: Any) -> bool:
    """Whether the event counts as evidence: its caller held the key, or the format cannot tell who did."""
    return event.authenticated == 1 or event.sees & SEES_OUTCOME == 0


UNKNOWN_NETWORKS: Final = 0xFFFF_0000
"""Of addresses whose network the geo database does not know all those in one country are one: this + EVENT's country.

In the range of 32-bit numbers for private use (RFC 6996), which no network of the internet has. A sixth of all IPv4
addresses has a country and no network in the database that ships."""


def network_words(asn: int, name: str) -> str:
    """ "AS64500 (NAME)", or that the network is not known."""
    if asn == 0 or asn >= UNKNOWN_NETWORKS:
        return "an unknown network"
    return f"AS{asn}" + (f" ({name})" if name else "")


NOTHING: Final = np.dtype([("unused", "u1")])
"""`shared` of a detector that shares nothing."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the words of a finding may name: the event in text and how long the key has been watched."""

    key_id: str
    method: str
    route: str
    status: int
    client_ip: str
    country: str
    asn: int
    network: str  # the network's name where the database has one
    client: str
    local_time: str  # "Tue 03:12" in the key's zone
    time_zone: str
    seen_days: float


@dataclass(frozen=True)
class Detector:
    """One line of the tuple. Functions are uncompiled scalar Python that numba accepts (nopython).

    score(state, shared, visit, event, config, reading) -> None   fills reading, writes nothing else
    learn(state, shared, visit, event, weight, config) -> None    writes state (and shared), nothing else
    settle(state, shared, visit, weight, config) -> None          the visit ended; writes state and shared
    prepare(state, shared, visit, event, config) -> None          writes state, nothing else; None: there is none

    state: one record of dtype `state` (zeros = a key never seen). shared: one record of dtype `shared`, the
    partition's knowledge (zeros = nothing known; shipped defaults are in code). visit: VISIT record. event: EVENT
    record. weight: 1.0, or 0.0 where nothing may be learned as normal. config: one record of `config_dtype`.
    """

    name: str
    family: str  # network | client | operation | volume | outcome | time | declared
    unit: str  # of observed and band, e.g. "requests"
    state: np.dtype[Any]
    shared: np.dtype[Any]
    config: Any  # a frozen msgspec Struct instance: the defaults, one TOML table [detectors.<name>]
    score: Callable[..., None]
    learn: Callable[..., None]
    settle: Callable[..., None]
    explain: Callable[[Any, Context], str]  # (READING record, Context) -> words, no key id, no verdict
    prepare: Callable[..., None] | None = None
    finds_places: bool = False  # what it finds makes the visit's place new for the detectors after it in the tuple


def usual_words(low: float, median: float, high: float) -> str:
    """What is usual of a count: "9 [3-21] are usual"; "none are usual" reads better than "0 [0-0] are usual"."""
    return f"{median:.0f} [{low:.0f}-{high:.0f}] are usual" if high >= 0.5 else "none are usual"


def known_words(seen_days: float) -> str:
    """How long a young key is known: "40 min", "19 h" or "3 days"."""
    minutes = round(24 * 60 * seen_days)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def config_record(config: Any) -> np.ndarray[Any, Any]:
    """The config Struct (int, float and bool fields only) as an array of one record, so that it can be compiled in."""
    fields = msgspec.structs.fields(config)
    dtype = np.dtype([(field.name, "f8") for field in fields])
    record = np.zeros(1, dtype)
    for field in fields:
        record[field.name] = float(getattr(config, field.name))
    return record
