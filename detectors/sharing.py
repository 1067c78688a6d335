"""Sharing: one key in more networks or at more addresses at once than it ever is.

Detects: a key that was passed on, resold or spread over a proxy network: distinct networks and distinct addresses
within one visit (an hour at most), each against the key's own counts, whose law is heavy-tailed.
Misses: two users behind one network and few addresses; a thief who comes when the owner does not; keys that are shared
by design (a mobile application's), as far as their counts go up and down anyway.
False alarms: a fleet that scales out, a failover, a carrier that changes addresses within a visit. Successes only. One
new network beside the owner's is geography's finding, not counted here again.
Source: reference/detections.md, no. 2 (networks, cities and clients within 30 min); the law is evidence.md's e5.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import ERROR_NONE, NET_PRIVATE, NOTHING, SEES_ADDRESS, Context, Detector
from detectors.distinct import add, estimate, has, wipe
from detectors.known_values import HOUR_US
from detectors.log_sizes import evidence_of
from detectors.places import short
from detectors.surprise import bits_of, quantise

BITMAP_BYTES: Final = 8
BITS: Final = 8 * BITMAP_BYTES
PRIOR: Final = 2.0  # pseudo-visits of a and of b
HALF_LIFE_H: Final = 60.0 * 24.0
MOST_TERMS: Final = 256
TWO_TESTS_BITS: Final = 1.0
NETWORKS: Final = 1
ADDRESSES: Final = 2

COUNTS: Final = np.dtype([("a", "f4"), ("b", "f4")])
"""Distinct values of a visit are 1 + geometric with a Beta(PRIOR + a, PRIOR + b) chance; decayed."""
STATE: Final = np.dtype(
    [
        ("networks", COUNTS),
        ("addresses", COUNTS),
        ("at_h", "i4"),  # of the last visit learned
        ("network_bits", "u1", (BITMAP_BYTES,)),  # of this visit
        ("address_bits", "u1", (BITMAP_BYTES,)),
        ("network_count", "u1"),  # bits set
        ("address_count", "u1"),
        ("pad", "u1", (2,)),
    ],
    align=True,
)


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.sharing]"""

    cap_bits: float = 12.0  # of the log likelihood ratio
    floor_bits: float = 0.5


@compiled
def tail(counts: Any, x: int) -> float:
    """P(a visit brings x or more): prod (b + i) / (a + b + i) over i < x - 1."""
    a, b = PRIOR + float(counts.a), PRIOR + float(counts.b)
    p = 1.0
    for i in range(min(x - 1, MOST_TERMS)):
        p *= (b + i) / (a + b + i)
    return p


@compiled
def count_bits(counts: Any, x: int) -> float:
    """Mid-p bits of x distinct values in a visit."""
    if x < 2:
        return 0.0
    here = tail(counts, x)
    return bits_of(0.5 * (here + tail(counts, x + 1)))


@compiled
def counts_event(event: Any) -> bool:
    """A success from a public address."""
    return (
        int(event.authenticated) == 1
        and int(event.error) == ERROR_NONE
        and int(event.address) != 0
        and int(event.net_flags) & NET_PRIVATE == 0
    )


@compiled
def distinct_of(bitmap: Any, used: int, value: int) -> int:
    """Distinct values of the visit with this one."""
    if value != 0 and not has(bitmap, value):
        used += 1
    return math.floor(estimate(used, BITS) + 0.5)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = NETWORKS or ADDRESSES, b = the other's count."""
    if int(event.sees) & SEES_ADDRESS == 0:
        return
    reading.covered = 1
    if int(state.at_h) == 0 or not counts_event(event):
        return
    networks = distinct_of(state.network_bits, int(state.network_count), int(event.asn))
    addresses = distinct_of(state.address_bits, int(state.address_count), short(event.address))
    told = networks - 1 if int(visit.new_place) == 1 else networks
    by_network = count_bits(state.networks, told)
    by_address = count_bits(state.addresses, addresses - 1 if int(visit.new_place) == 1 else addresses)
    wider = by_network >= by_address
    bits = quantise(max(0.0, max(by_network, by_address) - TWO_TESTS_BITS))
    evidence = evidence_of(bits, float(config.floor_bits), float(config.cap_bits))
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    if bits <= 0.0:
        return
    reading.bits = bits
    reading.observed = float(networks if wider else addresses)
    if wider:
        describe(state.networks, reading)
    else:
        describe(state.addresses, reading)
    reading.a = float(NETWORKS if wider else ADDRESSES)
    reading.b = float(addresses if wider else networks)


@compiled
def describe(counts: Any, reading: Any) -> None:
    """The band of the law."""
    a, b = PRIOR + float(counts.a), PRIOR + float(counts.b)
    reading.low = 1.0
    reading.median = 1.0
    reading.high = 1.0
    p = 1.0  # of x or more
    for x in range(2, MOST_TERMS):
        p *= (b + x - 2) / (a + b + x - 2)
        if p < 0.05:
            break
        if p >= 0.5:
            reading.median = float(x)
        reading.high = float(x)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Take network and address into the visit; settle decides what is kept of it."""
    if int(event.sees) & SEES_ADDRESS == 0 or not counts_event(event):
        return
    if int(event.asn) != 0 and add(state.network_bits, int(event.asn)):
        state.network_count = int(state.network_count) + 1
    if add(state.address_bits, short(event.address)):
        state.address_count = int(state.address_count) + 1


@compiled
def learn_counts(counts: Any, used: int, kept: float) -> None:
    """One visit's count into the law."""
    x = math.floor(estimate(used, BITS) + 0.5)
    counts.a = float(counts.a) * kept + 1.0
    counts.b = float(counts.b) * kept + max(0, x - 1)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's counts into the laws."""
    if weight > 0.0 and int(state.address_count) > 0:
        now_h = int(visit.last_us) // HOUR_US
        kept = math.exp(-0.6931471805599453 * max(0, now_h - int(state.at_h)) / HALF_LIFE_H)
        learn_counts(state.networks, int(state.network_count), kept)
        learn_counts(state.addresses, int(state.address_count), kept)
        state.at_h = max(int(state.at_h), now_h)
    wipe(state.network_bits)
    wipe(state.address_bits)
    state.network_count = 0
    state.address_count = 0


def explain(reading: Any, context: Context) -> str:
    """In words: "in 6 networks at once (41 addresses), where 1 [1-2] are usual"."""
    usual = f"where {reading.median:.0f} [{reading.low:.0f}-{reading.high:.0f}] are usual"
    if reading.a == NETWORKS:
        return f"in {reading.observed:.0f} networks within an hour ({reading.b:.0f} addresses), {usual}"
    return f"at {reading.observed:.0f} addresses within an hour, {usual}"


SHARING: Final = Detector(
    name="sharing",
    family="network",
    unit="networks or addresses in a visit",
    state=STATE,
    shared=NOTHING,
    config=Sharing(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
