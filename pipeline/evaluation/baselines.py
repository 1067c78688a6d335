"""What others do, in the same run: eight rules, each as one score per key and hour, compared at the same budget.

 rate_limit     requests of the hour over 3 x the p99 of the key's hours so far
 ewma_z         (hour's requests - moving mean) / moving deviation, half-life a day
 half_space     River's half-space trees over the hour's features (log requests, new network, new client, distinct
                operations, error share, log bytes), standardised by running mean and deviation
 new_country    the hour's calls bring a country that the key never had: 1 or 0
 travel         fastest two calls of different networks in the hour, km/h over 900, within the hour and from the last
                call before; `travel_list` leaves out hosting networks and networks the key already has
 first_address  an address that is not the key's first: 1 or 0
 union          any of the others, each with an equal part of the budget
Scores of untouched hours set the threshold that gives the budget (one alarm per key and day); where a rule cannot be
that quiet (0 or 1) it alerts on a random share of what it sees, which is the best such a rule can do. Thresholds see
the very traffic that they are judged on, which favours the baselines.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.detector import NET_HOSTING
from pipeline.evaluation.world import HOUR_US, Vocabulary

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

RULES: Final = ("rate_limit", "ewma_z", "half_space", "new_country", "travel", "travel_list", "first_address")
KEEP: Final = 0.5 ** (1 / 24)
FEATURES: Final = 6


@dataclass
class Memory:
    """What the rules know of one key before some moment."""

    hours: Floats  # requests of each past hour, from the first call's hour on
    countries: set[int]
    networks: set[int]
    clients: set[int]
    first_address: int
    last: Array  # CALL of length 0 or 1


def memory_of(calls: Array, words: Vocabulary) -> Memory:
    """From all calls of the key before the moment."""
    hours = (calls["ts_us"] - calls["ts_us"][0]) // HOUR_US if len(calls) else np.zeros(0, np.int64)
    return Memory(
        np.bincount(hours).astype(np.float64), set(words.country(calls["place"]).tolist()),
        set(words.network(calls["place"]).tolist()), set(words.clients["client"][calls["client"]].tolist()),
        int(calls["place"][0]) if len(calls) else -1, calls[-1:],
    )  # fmt: skip


def hourly(calls: Array, words: Vocabulary, known: Memory) -> tuple[Floats, Floats, Floats]:
    """(scores by rule, shape (7, hours with a call); features; share of planted calls); half_space is filled later."""
    if not len(calls):
        return np.zeros((len(RULES), 0)), np.zeros((0, FEATURES)), np.zeros(0)
    calls = calls[np.argsort(calls["ts_us"], kind="stable")]
    _, hour, count = np.unique(calls["ts_us"] // HOUR_US, return_inverse=True, return_counts=True)
    country, network = words.country(calls["place"]), words.network(calls["place"])
    client = words.clients["client"][calls["client"]]
    scores = np.zeros((len(RULES), len(count)))
    limit = 3.0 * max(1.0, float(np.percentile(known.hours, 99))) if len(known.hours) else 3.0
    mean, deviation = _moving(known.hours)
    scores[0] = count / limit
    scores[1] = (count - mean) / max(1.0, deviation)
    fresh = ~np.isin(network, list(known.networks))
    np.maximum.at(scores[3], hour, ~np.isin(country, list(known.countries)))
    speed, listed = _speeds(calls, words, network, fresh, known)
    np.maximum.at(scores[4], hour, speed)
    np.maximum.at(scores[5], hour, listed)
    np.maximum.at(scores[6], hour, (calls["place"] != known.first_address) | (calls["turn"] > 0))
    features = _features(calls, hour, count, fresh, ~np.isin(client, list(known.clients)))
    return scores, features, np.bincount(hour, calls["planted"] > 0) / count


def _moving(hours: Floats) -> tuple[float, float]:
    recent = hours[-24 * 14 :]
    if not len(recent):
        return 0.0, 1.0
    weight = KEEP ** np.arange(len(recent))[::-1]
    mean = float((weight * recent).sum() / weight.sum())
    return mean, float(np.sqrt((weight * (recent - mean) ** 2).sum() / weight.sum()))


def _speeds(calls: Array, words: Vocabulary, network: Array, fresh: Array, known: Memory) -> tuple[Floats, Floats]:
    """km/h over 900 of each call against the one before; without and with a list of hosting and known networks."""
    whole = np.concatenate([known.last, calls])
    places = words.places[whole["place"]]
    lat, lon = np.radians(places["lat"].astype(np.float64)), np.radians(places["lon"].astype(np.float64))
    apart = np.sin(np.diff(lat) / 2) ** 2 + np.cos(lat[:-1]) * np.cos(lat[1:]) * np.sin(np.diff(lon) / 2) ** 2
    km = 2 * 6371 * np.arcsin(np.sqrt(np.clip(apart, 0, 1)))
    hours = np.maximum(np.diff(whole["ts_us"]) / HOUR_US, 1 / 60)
    moved = (np.diff(places["asn"].astype(np.int64)) != 0) & (km > 50)
    speed = np.where(moved & (km / hours > 900), km / hours / 900, 0.0)
    speed = speed[-len(calls) :] if len(speed) >= len(calls) else np.concatenate([[0.0], speed])
    hosting = words.places["net_flags"][calls["place"]] & NET_HOSTING > 0
    return speed, np.where(hosting | ~fresh, 0.0, speed)


def _features(calls: Array, hour: Array, count: Array, fresh: Array, new_client: Array) -> Floats:
    n = len(count)
    found = np.zeros((n, FEATURES))
    found[:, 0] = np.log1p(count)
    found[:, 1] = np.bincount(hour, fresh, n) / count
    found[:, 2] = np.bincount(hour, new_client, n) / count
    pairs = np.unique(np.stack([hour, calls["operation"]]), axis=1)[0]
    found[:, 3] = np.log1p(np.bincount(pairs, minlength=n))
    found[:, 4] = np.bincount(hour, calls["status"] >= 400, n) / count
    found[:, 5] = np.log1p(np.bincount(hour, calls["bytes_out"].astype(np.float64), n))
    return found


class HalfSpace:
    """River's half-space trees over standardised features, one model for all keys of a process."""

    def __init__(self, seed: int) -> None:
        from river.anomaly import HalfSpaceTrees

        limits: dict[Hashable, tuple[float, float]] = {str(i): (-4.0, 4.0) for i in range(FEATURES)}
        self._trees = HalfSpaceTrees(n_trees=15, height=8, window_size=500, limits=limits, seed=seed)
        self._n, self._mean, self._square = 0, np.zeros(FEATURES), np.ones(FEATURES)

    def learn(self, rows: Floats) -> None:
        """Take innocent hours in."""
        for row in rows:
            self._n += 1
            off = row - self._mean
            self._mean += off / self._n
            self._square += (off * (row - self._mean) - self._square) / self._n
            self._trees.learn_one(self._standard(row))

    def scores(self, rows: Floats) -> Floats:
        """Anomaly score of each hour, 0 .. 1."""
        return np.array([self._trees.score_one(self._standard(row)) for row in rows])

    def _standard(self, row: Floats) -> dict[str, float]:
        scaled = np.clip((row - self._mean) / np.sqrt(self._square + 1e-6), -4, 4)
        return {str(i): float(value) for i, value in enumerate(scaled)}


def threshold(untouched: Floats, key_days: float, per_100k: float) -> tuple[float, float]:
    """(score, share): alert above the score, and at it with this share of chance. `untouched`: largest per key-day."""
    allowed = per_100k * key_days / 100_000
    ordered = np.sort(untouched)[::-1]
    if allowed >= len(ordered):
        return -np.inf, 1.0
    at = ordered[int(allowed)]
    above, equal = int((ordered > at).sum()), int((ordered == at).sum())
    return float(at), (allowed - above) / equal


def chance(scores: Floats, limit: tuple[float, float]) -> Floats:
    """How probable an alarm is for each placement's largest score."""
    return np.where(scores > limit[0], 1.0, np.where(scores == limit[0], limit[1], 0.0))
