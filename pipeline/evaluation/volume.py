"""How much innocent keys of one habit call: the law of their counts within a span of a visit's first call.

The oracle's volume is the likelihood ratio of an *exponential tilt*: 2^(tilt N) over its mean under the key's own
generator, N the calls within a span of a visit's first one (given that a visit begins, as in Palm's law). The mean is
taken over visits that the generator itself makes (`world.starts` at the key's level: its series or its person's whole
life, the Azure trace's gaps), on another seed than the world. N is the same or larger with each call, so the ratio
never falls within a visit, and Markov's bound holds for whenever it is read.
Beyond the 99th percentile of N a geometric tail is put, its mean the seen excess's and two standard errors more, and
where what was seen there gives a larger mean of 2^(tilt N), that is taken. Tilts are .5, .75 and .9 of its slope,
with equal weights over tilts and spans: an attacker of unknown pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.world import HOUR_US, VISIT_US, Key, World, starts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VISIT_SPANS_S: Final = (10, 60, 600, 3_600)
LONG_SPANS_S: Final = (21_600, 86_400, 3 * 86_400, 14 * 86_400)
"""Counted from the first call of all."""
SLOPES: Final = (0.5, 0.75, 0.9)
TAIL: Final = 0.01
LIVES: Final = (48, 12, 12)
"""Of the same habits, each as long as the world, by volume class: a person's whole life takes more."""


@dataclass(frozen=True, slots=True)
class Law:
    """Per span and tilt (spans, 3): bits a call, and log2 of the mean of 2^(tilt N)."""

    tilt: Floats
    mean: Floats

    def bits(self, counts: Floats) -> Floats:
        """log2 of the likelihood ratio, mixed over spans and tilts; `counts`: (calls, spans)."""
        each = counts[:, :, None] * self.tilt - self.mean
        most = each.max(axis=(1, 2), keepdims=True)
        mixed: Floats = most[:, 0, 0] + np.log2(np.mean(2.0 ** (each - most), axis=(1, 2)))
        return mixed


def laws(key: Key, world: World, calls_a_day: float) -> tuple[Law, Law]:
    """Of a visit's spans and of long ones."""
    rng = np.random.default_rng([971, key.number])
    lives = [starts(key, world, rng, calls_a_day) for _ in range(LIVES[key.volume])]
    return _law(lives, VISIT_SPANS_S, world.days), _law(lives, LONG_SPANS_S, world.days)


def _law(lives: list[Floats], spans_s: tuple[int, ...], days: int) -> Law:
    apart = [len(lives) * days * 86_400 / span for span in spans_s]
    counts = [np.concatenate([within(hours, span / 3600, days) for hours in lives]) for span in spans_s]
    rows = [tilted(each, most) for each, most in zip(counts, apart, strict=True)]
    return Law(np.array([tilts for tilts, _ in rows]), np.array([means for _, means in rows]))


def within(hours: Floats, span_h: float, days: float) -> Ints:
    """Calls within the span of each visit's first call; visits so late that the span isn't over are left out."""
    _, first = np.unique((hours * (HOUR_US / VISIT_US)).astype(np.int64), return_index=True)
    first = first[hours[first] <= days * 24 - span_h]
    counts: Ints = np.searchsorted(hours, hours[first] + span_h, side="right") - first
    return counts


def tilted(counts: npt.NDArray[Any], apart: float) -> tuple[Floats, Floats]:
    """The tilts in bits a call and log2 of the mean of 2^(tilt N) of such counts, in `apart` spans that don't overlap.

    The tail begins where ten of those are beyond it at least, and their number gives the standard errors.
    """
    counts = np.append(counts, 1.0).astype(np.float64)
    apart = min(apart, len(counts))
    high = float(np.quantile(counts, 1 - min(0.5, max(TAIL, 10 / apart)), method="higher"))
    excess = counts[counts > high] - high
    n = len(excess) + 1.0
    errors = 2.0 / np.sqrt(1.0 + len(excess) * apart / len(counts))
    mean_excess = 1.0 + ((excess - 1.0).sum() + 1.0) / n * (1.0 + errors)
    rest = 1.0 - 1.0 / mean_excess  # of those beyond `high` by k, how many are by k + 1
    slopes = -np.array(SLOPES) * np.log(rest)
    below = np.exp(slopes[:, None] * (counts[counts <= high] - high)).sum(axis=1) / len(counts)
    seen = np.exp(slopes[:, None] * excess).sum(axis=1) / len(counts)
    tail = n / (len(counts) + 1.0) * (1.0 - rest) * np.exp(slopes) / (1.0 - rest * np.exp(slopes))
    return slopes / np.log(2), (slopes * high + np.log(below + np.maximum(seen, tail))) / np.log(2)
