"""How strong a planted attack is: log2 of its likelihood under its own generator over the innocent one's.

The oracle knows both generators (`world`, `attacks`): the key's habits and hazards, the hour's rate, what its routes
and sizes are. Per planted visit in which the owner came between: the place and the client; per distinct operation with
its outcome, and per size where the attack changes sizes. The volume of a planted visit is judged by the tail of a
negative binomial law of the key's own mean in those hours and own dispersion at that span (innocent calls come in
clumps: by a Poisson law six reads in three seconds had 40 bits, in a key that does so every day), less two bits for
not knowing how many there would be; visits add up, or all days together where that says more.
`cut` keeps the first calls that reach the wanted bits, so that a strength means the same in every scenario; what a
scenario cannot reach is reported as it is. Identities of places are not counted twice: which foreign place it is, both
sides draw from the same list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.surprise import bits_of, negative_binomial_tail
from pipeline.evaluation.world import DAY_US, HOUR_US, NO_ZONE, VISIT_US, Key, World

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SPANS_S: Final = (10, 60, 600, 3_600, 86_400)
LEAST_RATE: Final = 0.02
"""Calls an hour: what an owner may always do, ten times a month at odd hours."""
REFUSED: Final = 0.0005
"""Of innocent calls are refused where none of the key's own lines is: 5 of 10,000 lines of the log are 403 or 5xx."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What the oracle knows of one key: shares of operations with status, rates by hour of the day, sizes."""

    visits_a_day: float
    calls_a_day: float
    hourly: Floats  # calls per hour by hour of the day, UTC
    shares: dict[tuple[int, int], float]  # (operation, status) -> share of its calls
    log_bytes: float
    spread: float
    clumps: Floats  # variance over mean of its calls in windows of SPANS_S


def habits(calls: Array, days: float) -> Habits:
    """From the key's untouched calls over `days`."""
    hours = np.bincount((calls["ts_us"] // HOUR_US % 24).astype(np.int64), minlength=24) / max(1.0, days)
    pairs, counts = np.unique(np.stack([calls["operation"], calls["status"]]), axis=1, return_counts=True)
    shares = {(int(a), int(b)): float(c) / len(calls) for (a, b), c in zip(pairs.T, counts, strict=True)}
    sizes = np.log(calls["bytes_out"].astype(np.float64) + 100.0)
    visits = len(np.unique(calls["ts_us"] // VISIT_US))
    return Habits(
        max(0.05, visits / days), max(0.1, len(calls) / days), np.maximum(hours, LEAST_RATE), shares,
        float(sizes.mean()) if len(sizes) else 8.0, max(0.7, float(sizes.std())) if len(sizes) else 1.0,
        _clumps(calls, days),
    )  # fmt: skip


def bits(key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """Bits after each planted call (sorted by time); `owner_us`: times of the owner's calls, sorted."""
    if not len(planted):
        return np.zeros(0)
    return _context(key, known, world, planted, owner_us) + _calls(known, world, planted) + _volume(known, planted)


def _context(key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """Place and client, each time the owner came between or they changed."""
    turn = np.searchsorted(owner_us, planted["ts_us"])
    changed = np.ones(len(planted), np.bool_)
    changed[1:] = turn[1:] != turn[:-1]
    half_hour = np.ones(len(planted), np.bool_)
    half_hour[1:] = np.diff(planted["ts_us"]) > VISIT_US
    changed[1:] &= half_hour[1:]  # within a visit the owner's calls between prove nothing new
    network = world.words.network(planted["place"])
    foreign = ~np.isin(network, world.words.network(key.homes))
    abroad = ~np.isin(world.words.country(planted["place"]), world.words.country(key.homes))
    per_visit = 0.7 * key.place_hazard / known.visits_a_day
    place = np.where(foreign, -np.log2(np.minimum(0.5, per_visit * np.where(abroad, 0.3, 0.7))), 0.0)
    strange = ~np.isin(planted["client"], key.clients)
    apart = np.minimum(0.5, key.client_hazard / known.visits_a_day)
    client = np.where(strange, -np.log2(np.where(foreign, 0.25, apart)), 0.0)
    fresh = np.zeros(len(planted), np.bool_)
    fresh[np.unique(network, return_index=True)[1]] = True
    return np.asarray(np.cumsum(np.where(changed, place + client, np.where(fresh, place, 0.0))))


def _calls(known: Habits, world: World, planted: Array) -> Floats:
    """Operation with outcome against the key's own; bounded above by 10 bits a distinct one, 0 when repeated."""
    gains, seen = np.zeros(len(planted)), set()
    for i, call in enumerate(planted):
        pair = (int(call["operation"]), int(call["status"]))
        if pair in seen:
            continue
        seen.add(pair)
        own = known.shares.get(pair, 0.0)
        new = min(0.5, 0.05 / known.calls_a_day) * (REFUSED if pair[1] in (401, 403) else 1.0)
        gains[i] = min(10.0, max(0.0, np.log2(0.02 / max(own, new))))
    sizes = np.log(planted["bytes_out"].astype(np.float64) + 100.0)
    shift = max(0.0, float(sizes.mean()) - known.log_bytes)
    bytes_bits = (
        shift * (sizes - known.log_bytes - shift / 2) / known.spread**2 / np.log(2) if shift > 0.5 else 0.0 * sizes
    )
    return np.asarray(np.cumsum(gains + np.minimum(bytes_bits, 3.0)))


def _clumps(calls: Array, days: float) -> Floats:
    """Variance over mean of the key's calls per window, at least 1.05, by span."""
    found = []
    for span_s in SPANS_S:
        counts = np.unique(calls["ts_us"] // (span_s * 1_000_000), return_counts=True)[1].astype(np.float64)
        windows = days * 86_400 / span_s
        mean = counts.sum() / windows
        found.append(max(1.05, (counts**2).sum() / windows / mean - mean) if mean > 0 else 2.0)
    return np.array(found)


def _volume(known: Habits, planted: Array) -> Floats:
    """Bits of the counts: visits add up, or all together by the day; never falling."""
    at = planted["ts_us"]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(at) > VISIT_US) + 1])
    which = np.searchsorted(begins, np.arange(len(at)), side="right") - 1
    first = begins[which]
    n = np.arange(len(at)) - first + 1
    span_h = np.maximum((at - at[first]) / HOUR_US, SPANS_S[0] / 3600)
    rate = known.hourly[(at // HOUR_US % 24).astype(np.int64)]
    visit = np.array(
        [_tail_bits(known, int(k), float(r * s), float(s)) for k, r, s in zip(n, rate, span_h, strict=True)]
    )
    ended = np.concatenate([[0.0], np.cumsum(np.maximum.reduceat(visit, begins))])
    visits = ended[which] + visit
    days = np.maximum(1.0, (at - at[0]) / DAY_US)
    every = np.linspace(1, len(at), min(len(at), 40)).astype(int)
    whole = [_tail_bits(known, int(k), known.calls_a_day * float(days[k - 1]), 24.0) for k in every]
    together = np.interp(np.arange(1, len(at) + 1), every, whole)
    return np.asarray(np.maximum.accumulate(np.maximum(visits, together)))


def _tail_bits(known: Habits, count: int, due: float, span_h: float) -> float:
    """-log2 of the chance of `count` more than are due, by the key's own dispersion at that span; less two."""
    clump = float(np.interp(np.log(span_h * 3600), np.log(SPANS_S), known.clumps))
    total = count + int(due)
    return max(0.0, bits_of(negative_binomial_tail(total, due, max(1e-6, due / (clump - 1.0)))) - 2.0)


def cut(
    key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64], wanted: float
) -> tuple[Array, float]:
    """The first calls that together have `wanted` bits (or all there are), and the bits they have."""
    after = bits(key, known, world, planted, owner_us)
    enough = np.flatnonzero(after >= wanted)
    count = int(enough[0]) + 1 if len(enough) else len(planted)
    return planted[:count], float(after[count - 1]) if count else 0.0


def zone(key: Key) -> int:
    """What CALL says of the key's zone."""
    return key.zone_h if key.zone_declared else NO_ZONE


def days_of(calls: Array) -> float:
    """Days from the first to the last call."""
    return float((calls["ts_us"][-1] - calls["ts_us"][0]) / DAY_US) if len(calls) else 0.0
