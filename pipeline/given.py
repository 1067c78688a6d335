"""Bits of one family of evidence GIVEN another: what is left of its surprise once the other one is known.

Each detector's bits are against the key's own past, as if nothing else had happened. But one innocent cause brings
several at once: who moves house has a new network and a new client, a release brings a new client, new calls, load,
larger answers and errors. Of such a pair the second is no second fact. The surprise of both together is its sum less
a `lift` that the common cause gives the pair, so either has as many bits less given the other. Where a common cause is
known and its lift was never measured, the two are ONE fact: given the stronger, the weaker has none.

 release    client, operation, volume, outcome, data, time: a new version, a new job, a job that is switched on again
 newcomer   network and client: a quarter of the visits from a new place bring a new client (`novel_client.peers_new`)
 moved      network and operation, network and time: from a new place a new route is 8.4 times likelier (.0084 against
            .0010), an odd hour 2.2 times (.09 against .04; both reference/evidence.md, section 4); load and sizes are
            taken like routes, since a newcomer does other things: 5 acts on untouched keys hung on that
 declared   what breaks a declaration of networks, scopes or kinds of calls is seen as a new network or call, too
All other pairs (a network and errors; a broken declaration and load, errors, sizes, clients, hours) are independent.
Measured (keybench, development half, two worlds, 75,600 key-days of untouched keys): 15 acts when each family's own
bits counted, none so; of 348 incidents of attacks 174 then, 66 so: the rest is for people, with one command. These are
the worlds that it was chosen on. On one of the other half (seed 51, 13,800 key-days): 1 and none of untouched keys, 121
and 41 of 290 attacks, none of innocent stories (`keywatch evaluate keybench`: `acts`, so and by their own bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import isfinite
from typing import Final, NamedTuple

RELEASE: Final = frozenset({"client", "operation", "volume", "outcome", "data", "time"})
DECLARABLE: Final = frozenset({"network", "operation"})
NEWCOMER_BITS: Final = 2.0  # a client's given a network
MOVED_BITS: Final = {"operation": 3.1, "volume": 3.1, "data": 3.1, "time": 1.2}


class Pair(NamedTuple):
    """Two families, the stronger first, each with its own bits and those given the other."""

    first: str
    second: str
    first_bits: float
    second_bits: float
    first_given: float
    second_given: float

    @property
    def weaker(self) -> float:
        """The smaller of the two given the other."""
        return min(self.first_given, self.second_given)


def lift(one: str, other: str, weaker_bits: float) -> float:
    """Bits that a pair of families has in common, 0 .. `weaker_bits`; the same for both orders."""
    pair = {one, other}
    if one == other or pair <= RELEASE:
        return weaker_bits
    if "declared" in pair:
        return weaker_bits if pair & DECLARABLE else 0.0
    if pair == {"network", "client"}:
        return max(0.0, weaker_bits - NEWCOMER_BITS)
    known = [MOVED_BITS[family] for family in pair if family in MOVED_BITS] if "network" in pair else []
    return min(weaker_bits, known[0]) if known else 0.0


def best(findings: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The largest bits of each family that has a name, of (family, bits); what is no number is nothing."""
    found: dict[str, float] = {}
    for family, bits in findings:
        if family and isfinite(bits) and bits > found.get(family, 0.0):
            found[family] = bits
    return found


def strongest_pair(bits: Mapping[str, float]) -> Pair | None:
    """The two families whose weaker one has most bits given the other; None where there is but one family.

    `bits` by family, of findings that may count only: what anybody can bring about would explain the rest away.
    """
    pairs = (_pair(one, other) for one, other in combinations(bits.items(), 2))
    return max(pairs, key=lambda pair: (pair.weaker, pair.first_given, pair.first, pair.second), default=None)


def _pair(one: tuple[str, float], other: tuple[str, float]) -> Pair:
    (first, most), (second, least) = sorted((one, other), key=lambda each: (-each[1], each[0]))
    common = lift(first, second, least)
    return Pair(first, second, most, least, most - common, least - common)
