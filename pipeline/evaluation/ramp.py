"""How far a patient attacker gets unseen: traffic that grows by so much a day, on top of an owner who stays as he is.

Keys of three rates are used evenly for 60 days (contexts of keybench's world). Then calls of the same place, client and
routes are added: a tenth of the owner's on the first day, and each day so much more. What is reported is the largest
multiple of the owner's traffic that was reached on a whole day before any incident opened: the best of all growths, so
that of an attacker who knows the detectors and chooses. The pass is the worker's, with the shipped setting.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors import fusion
from pipeline.evaluation.run import Partition, Setting
from pipeline.evaluation.sources import Ints
from pipeline.evaluation.work import make_world
from pipeline.evaluation.world import DAY_US, START_US, Key, World, dress, events_of
from pipeline.progress import counted

Array = npt.NDArray[Any]

OWN_DAYS: Final = 60
RAMP_DAYS: Final = (28, 60)
PER_DAY: Final = (24.0, 120.0, 600.0)
"""Calls of the owner."""
GROWTH: Final = (1.02, 1.04, 1.07, 1.1, 1.15, 1.25, 1.5, 2.0)
FIRST: Final = 0.1
MOST: Final = 12.0
"""Times the owner's traffic: nobody who gets there is slow."""
SPANS: Final = 50
"""Of the traffic, judged one after the other: what is judged does not depend on it, the bar does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ramp:
    """One attacker: the owner's calls a day, the growth, and the day of the first incident (None: none came)."""

    per_day: float
    growth: float
    seen_day: int | None

    def gain(self, days: int) -> float:
        """Largest multiple of the owner's traffic on a whole day without an incident, within so many days."""
        last = days if self.seen_day is None else min(days, self.seen_day)
        return 1.0 + (extra(self.growth, last - 1) if last > 0 else 0.0)


def extra(growth: float, day: int) -> float:
    """Added calls as a share of the owner's, on a day of the ramp."""
    return min(MOST, FIRST * growth**day)


def measure(data: Path, half: str = "held-out", seed: int = 1) -> dict[str, Any]:
    """`gain`: by days of ramp the largest undetected multiple; `by_growth`: the day seen, and the multiple then."""
    ramps = run(data, half, seed)
    return {
        "gain": {str(days): max(ramp.gain(days) for ramp in ramps) for days in RAMP_DAYS},
        "by_growth": {
            f"{growth:g} x a day, {per_day:g} calls a day": {
                "seen_day": ramp.seen_day, "gain": ramp.gain(RAMP_DAYS[-1]),
            }
            for ramp in ramps for growth, per_day in [(ramp.growth, ramp.per_day)]
        },
    }  # fmt: skip


def run(data: Path, half: str, seed: int) -> list[Ramp]:
    """All attackers, one key each."""
    plans = [(per_day, growth) for per_day in PER_DAY for growth in GROWTH]
    world = make_world(data, half, len(plans), OWN_DAYS + RAMP_DAYS[-1], seed)
    rng = np.random.default_rng([seed, 41])
    attackers = counted(zip(world.keys, plans, strict=True), "attackers", len(plans))
    parts = [traffic(world, key, *plan, rng) for key, plan in attackers]
    calls = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(calls["ts_us"], kind="stable")
    partition = Partition(Setting(), len(parts))
    spans = counted(np.array_split(order, SPANS), "judging", SPANS)
    changed = np.concatenate([partition.judge(events_of(calls[some], world.words, owner[some]))[1] for some in spans])
    return [Ramp(*plan, first_seen(changed, slot)) for slot, plan in enumerate(plans)]


def traffic(world: World, key: Key, per_day: float, growth: float, rng: np.random.Generator) -> Array:
    """The owner's calls and the ramp's (CALL), with contexts of the owner's own: one place, one client."""
    days = OWN_DAYS + RAMP_DAYS[-1]
    own = rng.poisson(per_day, days)
    added = [rng.poisson(per_day * extra(growth, day)) for day in range(RAMP_DAYS[-1])]
    counts = own + np.concatenate([np.zeros(OWN_DAYS, np.int64), np.array(added)])
    calls = dress(key, world, times(counts, rng), rng)
    calls["place"], calls["client"] = key.homes[0], key.clients[0]
    return calls


def times(counts: Ints, rng: np.random.Generator) -> Ints:
    """Times of so many calls a day, at random within it."""
    day = np.repeat(np.arange(len(counts)), counts)
    at: Ints = np.sort(START_US + day * DAY_US + (rng.random(len(day)) * DAY_US).astype(np.int64))
    return at


def first_seen(changed: Array, slot: int) -> int | None:
    """Day of the ramp on which the key's first incident opened; what opened before it is passed over."""
    opened = changed[(changed["kind"] == fusion.OPENED) & (changed["slot"] == slot)]
    days = (opened["at_us"] - START_US) // DAY_US - OWN_DAYS
    later = days[days >= 0]
    return int(later.min()) if len(later) else None
