"""How far a patient attacker gets unseen: traffic that grows by so much a day, on top of an owner who stays as he is.

Keys of three rates are used evenly for 60 days (contexts of keybench's world). Then calls of the same place, client and
routes are added: a tenth of the owner's on the first day, and each day so much more, day after day until an incident
opens: nothing but detection ends a ramp before its last day, unless the attacker asks for MOST_A_DAY. What is reported
is the largest multiple of the owner's traffic that was reached on a whole day before any incident opened: the best of
all growths, so that of an attacker who knows the detectors and chooses. The pass is the worker's, as shipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
"""Calls of the owner, a day."""
GROWTH: Final = (1.02, 1.04, 1.07, 1.1, 1.12, 1.15, 1.2, 1.25, 1.35, 1.5, 1.7, 2.0, 3.0)
FIRST: Final = 0.1
MOST_A_DAY: Final = 50_000.0
"""Added calls: he stops growing there, for the run to end; a gain that is this bound's own is called `bounded`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ramp:
    """One attacker: the owner's calls a day, the growth, and the day of the first incident (None: none came)."""

    per_day: float
    growth: float
    seen_day: int | None

    def gain(self, days: int) -> float:
        """Largest multiple of the owner's traffic on a whole day without an incident, within so many days."""
        last = days if self.seen_day is None else min(days, self.seen_day)
        return 1.0 + (extra(self.per_day, self.growth, last - 1) if last > 0 else 0.0)

    def bounded(self, days: int) -> bool:
        """Whether that multiple is where the run's own bound ended the growth."""
        return self.gain(days) >= 1.0 + MOST_A_DAY / self.per_day


def extra(per_day: float, growth: float, day: int) -> float:
    """Added calls as a share of the owner's, on a day of the ramp."""
    return min(MOST_A_DAY / per_day, FIRST * growth**day)


def measure(data: Path, half: str = "held-out", seed: int = 1) -> dict[str, Any]:
    """`gain`: by days of ramp the largest undetected multiple; `by_growth`: the day seen, and the multiple then."""
    ramps = run(data, half, seed)
    return {
        "gain": {str(days): max(ramp.gain(days) for ramp in ramps) for days in RAMP_DAYS},
        "bounded": {str(days): max(ramps, key=gain_within(days)).bounded(days) for days in RAMP_DAYS},
        "by_growth": {
            f"{ramp.growth:g} x a day, {ramp.per_day:g} calls a day": {
                "seen_day": ramp.seen_day, "gain": ramp.gain(RAMP_DAYS[-1]),
            }
            for ramp in ramps
        },
    }  # fmt: skip


def gain_within(days: int) -> Callable[[Ramp], float]:
    """What the best attacker is the best at."""
    return lambda ramp: ramp.gain(days)


def run(data: Path, half: str, seed: int) -> list[Ramp]:
    """All attackers, one key each, each for himself: in one partition they would be each other's innocent peers."""
    plans = [(per_day, growth) for per_day in PER_DAY for growth in GROWTH]
    world = make_world(data, half, len(plans), OWN_DAYS + RAMP_DAYS[-1], seed)
    rng, partition = np.random.default_rng([seed, 41]), Partition(Setting(), len(plans))
    parts = [
        traffic(world, key, 0, [per_day] * OWN_DAYS, rng) for key, (per_day, _) in zip(world.keys, plans, strict=True)
    ]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    calls = np.concatenate(parts)
    order = np.argsort(calls["ts_us"], kind="stable")
    partition.judge(events_of(calls[order], world.words, owner[order]))
    attackers = counted(plans, "attackers", len(plans))
    return [Ramp(*plan, seen_day(partition, world, slot, *plan, rng)) for slot, plan in enumerate(attackers)]


def seen_day(
    partition: Partition, world: World, slot: int, per_day: float, growth: float, rng: np.random.Generator
) -> int | None:
    """Day of this attacker's first incident. What keys share stays as it was: one of thousands does not move it."""
    mine = partition.branch(np.array([slot]), fresh=False)
    for day in range(RAMP_DAYS[-1]):
        rate = per_day * (1.0 + extra(per_day, growth, day))
        calls = traffic(world, world.keys[slot], OWN_DAYS + day, [rate], rng)
        mine.shared = partition.shared.copy()
        _, changed = mine.judge(events_of(calls, world.words, np.zeros(len(calls), np.int64)))
        if (changed["kind"] == fusion.OPENED).any():
            return day
    return None


def traffic(world: World, key: Key, first_day: int, rates: Sequence[float], rng: np.random.Generator) -> Array:
    """Calls (CALL) with contexts of the owner's own: one place, one client."""
    calls = dress(key, world, times(first_day, rng.poisson(rates), rng), rng)
    calls["place"], calls["client"] = key.homes[0], key.clients[0]
    return calls


def times(first_day: int, counts: Ints, rng: np.random.Generator) -> Ints:
    """Times of so many calls a day, at random within it."""
    day = first_day + np.repeat(np.arange(len(counts)), counts)
    at: Ints = np.sort(START_US + day * DAY_US + (rng.random(len(day)) * DAY_US).astype(np.int64))
    return at
