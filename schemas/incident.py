"""Incident v1: the episode of a key that findings open, extend and close; the thing that alerts.

Every message on `api.incidents` is the whole incident at one revision. `incident_id` depends on the key, the
rule and the first event, never on offsets; revision counts its messages, so (incident_id, revision) is unique.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

VERSION: Final = 1

Severity = Literal["medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("medium", "high", "critical")
"""medium: listed (once in 1,000 key-days by chance); high: pages (10,000); critical: a proof, or all of it at once."""
State = Literal["open", "closed"]
Rung = Literal["observe", "flag", "throttle", "fence", "deny", "suspend", "rotate", "revoke"]
Change = Literal["opened", "extended", "escalated", "closed"]


KEYS_NAMED: Final = 50
KEY_RULES: Final = frozenset({"visit", "slow", "proof"})
"""Rules of the keys' own topology; incidents of other rules are another worker's, whatever their key id."""
PROOF_RULES: Final = frozenset({"proof", "leak"})
"""What is no matter of chance: a decoy, a dead key, a secret that a leak feed has shown."""


class Band(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What is usual: median and the middle 90 % of the forecast, in the finding's unit."""

    low: float  # 5 of 100 are below
    median: float  # half are below
    high: float  # 5 of 100 are above


class Sample(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One event of the evidence, enriched; never a query string, never a secret."""

    at: str  # RFC 3339 UTC
    request_id: str = ""  # of the gateway
    method: str = ""  # GET, POST, ...
    route: str = ""  # the gateway's template
    status: int = 0  # of the answer
    outcome: str = ""  # what the gateway said of the credential
    client_ip: str = ""  # of the caller
    country: str = ""  # ISO 3166 alpha-2
    asn: int = 0  # number of its network
    network: str = ""  # its network's name
    client: str = ""  # family of the user agent


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One detector's surprise at one event. `bits` is -log2 of how likely it was; bits of detectors don't add."""

    detector: str  # which one
    family: str  # findings of one family count as one
    bits: float  # how surprising
    at: str  # RFC 3339 UTC
    observed: float  # what was seen
    expected: Band  # what is usual
    unit: str  # of observed and expected
    text: str  # in words
    authenticated: bool  # the caller held the key
    sample: Sample  # the event
    proof: bool = False  # no matter of chance: stands outside of the budgets


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The whole incident at one revision. Times RFC 3339 UTC; `return_period_days` in days of this key's use."""

    incident_id: str  # 32 hex digits; the same after a replay
    key_id: str  # whose it is; of a source or the fleet: its name
    rule: str  # visit | slow | proof | leak; of other topologies: spray | guessing | silence | outbreak | lifecycle
    revision: int  # counts its messages from 1
    change: Change  # what this revision tells
    state: State  # open | closed
    severity: Severity  # medium is listed, high pages, critical is a proof or all at once
    rung: Rung  # what the rule recommends; the responder's policy decides
    opened_at: str  # of the first event
    last_at: str  # of the newest event
    closed_at: str = ""  # "" while it is open
    bits: float = 0.0  # of the evidence, weighed together
    return_period_days: float = 0.0  # rarer than once in so many days of this key's use
    seen_days: float = 0.0  # how long this key has been watched
    text: str = ""  # in words
    findings: tuple[Finding, ...] = ()  # the evidence, the strongest first
    events: int = 0  # events of the key while open
    keys: tuple[str, ...] = ()  # of an incident of a source or of the fleet: the first `KEYS_NAMED` keys concerned
    keys_total: int = 0  # how many keys these are of
    environment: str = ""  # as declared
    owner: str = ""  # as declared
    role: str = ""  # as declared
    key_version: int = 0  # as declared: an act is bound to it
    geo_build: str = ""  # of the geo database that judged
    config_version: str = ""  # of the configuration that judged
    adopted: bool = False  # after 7 days without page grade what goes on is learned, though nobody has reviewed it
    label: str = ""  # expected | malicious: what people said of it while it was open
    partition: int = -1  # where its key's events lie
    offset: int = -1  # of the event that made this revision: evidence, no part of any id
    v: int = VERSION  # version of this shape


def incident_id(key_id: str, rule: str, first_event_at_us: int, request_id: str) -> str:
    """32 hex digits from what does not depend on slices, offsets or restarts.

    `request_id` may be any identity of the event, e.g. the hash of its canonical bytes where it has no id.
    """
    text = f"{key_id}\x00{rule}\x00{first_event_at_us}\x00{request_id}"
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-incident").hexdigest()


def webhook_id(incident: str, revision: int) -> str:
    """The `webhook-id` of one revision, the same at every attempt; no '.' in it (Standard Webhooks)."""
    return f"msg_{incident}_{revision}"
