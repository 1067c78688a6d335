"""Sharing: the key is used from several networks in turn, more than its visits do: it is in several hands at once.

Detects: a thief and the owner at the same time; a key handed round; one key from many residential addresses, each for a
call or some. What counts is how often a visit's network CHANGES from one request to the next: who moves changes once,
who shares changes back and forth. The first change is `geography`'s to judge; this judges the ones after it.
Misses: a thief within the owner's network, or while the owner is silent; keys that always come from several networks
at once (two sites, a phone between two carriers, a relay of many networks), by their own history.
False alarms: a phone at the edge of a wireless network; a failover that flaps; the first day of a second site.
Source: reference/detections.md, no. 2 (Elastic: several addresses, networks and cities within 30 min; Splunk: 5 min),
here against the key's own law and its peers'. Among strangers' visits with a change, how many change 2, 3, 5 times:
our judgement, of swarms of a call per address and of thieves between an owner's calls.

Law: of the visits with a change, those with 2, 3 and 5 or more: the key's own counts (memory 50 visits), with the
peers' share as prior; peers who never changed before are counted apart, since a first change is a move.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import (
    NET_KNOWN,
    NET_PRIVATE,
    SEES_ADDRESS,
    Context,
    Detector,
    attested,
    network_words,
)
from detectors.surprise import log2_of, quantise
from detectors.teaching import teaches, tell_levels

LEVELS: Final = 4
LEAST: Final = np.array([1, 2, 3, 5])  # changes of network in a visit
STRANGERS: Final = np.array([1.0, 0.7, 0.6, 0.4])
PEERS: Final = np.array([1.0, 0.3, 0.12, 0.05])  # of peers' visits with a change, before any was counted [judged]
PEERS_WEIGHT: Final = 20.0
PEERS_KEPT: Final = 2_000.0
OWN_WEIGHT: Final = 2.0  # visits that the peers' share weighs
RAREST: Final = 0.005
FADING: Final = 0.98  # per visit
FADING_VISITS: Final = 50.0
EVER: Final = 0.05  # decayed visits with a change: fewer and the key counts as one that never did

STATE: Final = np.dtype(
    [
        ("visits", "f4", (LEVELS,)),  # decayed, with so many changes or more
        ("network", "u4"),  # of the visit's last request; 0: none yet
        ("changes", "u1"),  # in this visit
        ("pad", "u1", (3,)),
    ],
    align=True,
)
SHARED: Final = np.dtype([("visits", "f8", (2, LEVELS))])
"""Visits with a change by their number, of keys that never had one before and of others."""


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.sharing]"""

    cap_bits: float = 7.0  # of the log likelihood ratio
    known_bits: float = 3.0  # the same where none of the visit's networks is new: a second site [judged]


@compiled
def counted(event: Any) -> bool:
    """Whether the event says from which network somebody who held the key came."""
    if event.sees & SEES_ADDRESS == 0 or event.net_flags & NET_KNOWN == 0 or event.net_flags & NET_PRIVATE != 0:
        return False
    return event.asn != 0 and attested(event)


@compiled
def changes_with(state: Any, event: Any) -> int:
    """Changes of network in this visit, with this event."""
    return int(state.changes) + (1 if state.network != 0 and event.asn != state.network else 0)


@compiled
def level_of(changes: int) -> int:
    """The highest level reached; -1 without a change."""
    level = -1
    for j in range(LEVELS):
        level = j if changes >= LEAST[j] else level
    return level


@compiled
def kind_of(state: Any) -> int:
    """0: a key that never changed networks within a visit."""
    return 1 if float(state.visits[0]) >= EVER else 0


@compiled
def peers_share(shared: Any, kind: int, level: int) -> float:
    """Of such peers' visits with a change, those that reached the level."""
    changed = shared.visits[kind, 0] + PEERS_WEIGHT
    return (shared.visits[kind, level] + PEERS_WEIGHT * PEERS[level]) / changed


@compiled
def share_of(state: Any, shared: Any, level: int) -> float:
    """Of this key's visits with a change, those that reach the level."""
    prior = peers_share(shared, kind_of(state), level)
    own = float(state.visits[level]) + OWN_WEIGHT * prior
    return max(RAREST, own / (float(state.visits[0]) + OWN_WEIGHT))


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = the level reached."""
    if not counted(event):
        return
    reading.covered = 1
    changes = changes_with(state, event)
    level = level_of(changes)
    if level < 1:
        return
    share = share_of(state, shared, level)
    watched = min(FADING_VISITS, int(visit.ordinal) + 1.0)
    any_change = min(1.0, (float(state.visits[0]) + 0.5) / (watched + 1.0))
    reading.bits = quantise(log2_of(1.0 / min(1.0, any_change * share)))
    most = float(config.cap_bits) if int(visit.new_place) == 1 else float(config.known_bits)
    reading.lr_stranger = quantise(min(most, max(0.0, log2_of(STRANGERS[level] / share))))
    reading.observed = changes
    reading.high = 1.0 if share < 0.05 else 2.0 if share_of(state, shared, LEVELS - 1) < 0.05 else 5.0
    reading.median = 1.0 if any_change >= 0.5 else 0.0
    reading.a = level


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Follow the visit's networks; what becomes of the count, settle decides."""
    if counted(event):
        state.changes = min(255, changes_with(state, event))
        state.network = event.asn


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's changes into the key's and the peers' counts."""
    if weight > 0.0 and int(state.network) != 0:
        kind, level = kind_of(state), level_of(int(state.changes))
        for j in range(LEVELS):
            state.visits[j] = FADING * float(state.visits[j]) + (1.0 if j <= level else 0.0)
        if teaches(visit):
            tell_levels(shared.visits[kind], level + 1, PEERS_KEPT)
    state.network = 0
    state.changes = 0


def explain(reading: Any, context: Context) -> str:
    """In words: "3 changes of network within one visit, now AS64500 (NAME) in RO: in several hands at once"."""
    place = network_words(context.asn, context.network) + (f" in {context.country}" if context.country else "")
    if reading.observed < LEAST[1]:
        return f"from one network at a time, now {place}"
    return f"{reading.observed:.0f} changes of network within one visit, now {place}: in several hands at once"


SHARING: Final = Detector(
    name="sharing",
    family="network",
    unit="changes of network in a visit",
    state=STATE,
    shared=SHARED,
    config=Sharing(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
