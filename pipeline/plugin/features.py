"""A key's minute as eight numbers, standardised by what this key's minutes usually are.

Logarithms for counts and sizes, shares for errors. A key's own mean and deviation (a memory of `MEMORY` minutes) once
it has `LEAST` minutes, those of all keys until then. Clipped to four deviations and put into 0 .. 1, which is what
River's half-space trees ask for.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

NAMES: Final = ("requests", "errors", "denied", "bytes_out", "addresses", "countries", "routes", "latency")
MEMORY: Final = 1_000.0
LEAST: Final = 30
CLIP: Final = 4.0
LEAST_DEVIATION: Final = 0.1
"""A constant key: a tenth of an e-fold is nothing odd."""
MOST_KEYS: Final = 200_000


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """One final row of `requests_1m`, its parts added up; in the order of the query's columns."""

    key_id: str
    start_s: int
    requests: int
    errors: int
    denied: int  # 401 and 403
    bytes_out: int
    addresses: int
    countries: int
    routes: int
    latency_sum_ms: float


def vector(minute: Minute) -> tuple[float, ...]:
    """In the order of NAMES, not yet standardised."""
    n = max(1, minute.requests)
    return (
        math.log1p(minute.requests), minute.errors / n, minute.denied / n, math.log1p(minute.bytes_out),
        math.log1p(minute.addresses), math.log1p(minute.countries), math.log1p(minute.routes),
        math.log1p(minute.latency_sum_ms / n),
    )  # fmt: skip


class Usual:
    """Running mean and variance of a key's vectors."""

    __slots__ = ("mean", "seen", "square")

    def __init__(self) -> None:
        self.seen = 0
        self.mean = [0.0] * len(NAMES)
        self.square = [0.0] * len(NAMES)

    def learn(self, values: tuple[float, ...]) -> None:
        """One more."""
        self.seen += 1
        share = 1.0 / min(float(self.seen), MEMORY)
        for i, value in enumerate(values):
            off = value - self.mean[i]
            self.mean[i] += share * off
            self.square[i] += share * (off * (value - self.mean[i]) - self.square[i])

    def standard(self, values: tuple[float, ...]) -> dict[str, float]:
        """Each within 0 .. 1, 0.5 is usual."""
        out = {}
        for i, value in enumerate(values):
            deviation = math.sqrt(max(self.square[i], LEAST_DEVIATION**2))
            scaled = max(-CLIP, min(CLIP, (value - self.mean[i]) / deviation))
            out[NAMES[i]] = (scaled + CLIP) / (2.0 * CLIP)
        return out


class Standards:
    """Of all keys; the one that came longest ago makes room."""

    def __init__(self) -> None:
        self._all = Usual()
        self._keys: dict[str, Usual] = {}

    def take(self, minute: Minute) -> dict[str, float]:
        """The standardised vector by what came before it; then it is learned."""
        values = vector(minute)
        own = self._keys.pop(minute.key_id, None) or Usual()
        self._keys[minute.key_id] = own
        if len(self._keys) > MOST_KEYS:
            del self._keys[next(iter(self._keys))]
        standard = (own if own.seen >= LEAST else self._all).standard(values)
        own.learn(values)
        self._all.learn(values)
        return standard
