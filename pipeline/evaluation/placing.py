"""Where keybench's stories are placed: which keys, from which day on.

Drawn from each volume class alike, and on such days as the story is about: after the key's first use, since somebody
else's is what is looked for, and where a story needs its owner (`VISITS`) on days in which he calls. Nobody travels
from, or takes turns with, an owner who is away; and an innocent story without a call of his tells nothing. Drawn from
what untouched keys do, before any detector runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.evaluation import attacks, innocents, variants
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.run import BURN_IN_DAYS, FRESH, PLANTED, Job, Placement
from pipeline.evaluation.world import DAY_US, START_US, VISIT_US, World

Array = npt.NDArray[Any]

DEFAULT_DAYS: Final = 3.0
MARGIN_DAYS: Final = 0.5
"""Before a placement's end; a story that begins later has no time to be told (`Stage.active_time`)."""
VISITS: Final = dict.fromkeys(innocents.INNOCENTS, 1) | {
    "leaked_abroad": 1, "leaked_vpn_home": 1, "leaked_same_provider": 1, "impossible_travel": 1,
    "slow_exfiltration": 1, "client_swap": 2,
}  # fmt: skip
"""Story -> half hours in which its owner calls, before the margin. Leaks are beside an active owner (the issue), travel
is minutes after him, slow exfiltration at his hours, a swapped client between his visits."""
TOGETHER: Final = ("retry_storm", "region_failover", "geo_update")
"""Many keys meet it in the same days."""
FIRST_DAY: Final = BURN_IN_DAYS + 4


def plan(job: Job, world: World, keys: Sequence[int], calls: Sequence[Array]) -> list[Placement]:
    """All placements of this process: scenario, key, start. `keys`: numbers in the world; `calls`: untouched ones."""
    rng = np.random.default_rng([job.seed, 77, job.part])
    visits = [np.unique(each["ts_us"] // VISIT_US) for each in calls]
    volumes = np.array([world.keys[key].volume for key in keys])
    found = []
    for name in (*job.scenarios, "placebo"):
        for bits in _strengths(name, job):
            for _ in range(_count(name, bits, job)):
                slot, day = _place(name, world.days, volumes, visits, rng)
                start_us = START_US + day * DAY_US
                found.append(Placement(name, bits, keys[slot], int(volumes[slot]), start_us, days_of(name)))
    return found


def days_of(name: str) -> float:
    """How long a placement of this scenario lasts."""
    return (attacks.DAYS | variants.DAYS | innocents.DAYS).get(name, DEFAULT_DAYS)


def _strengths(name: str, job: Job) -> tuple[float, ...]:
    """What a scenario is cut to; what is innocent has no strength."""
    return job.strengths if name in ATTACKS else (job.headline,) if name in PLANTED else (0.0,)


def _count(name: str, bits: float, job: Job) -> int:
    """Of this process; a third as many at other strengths than the headline's."""
    if name == "placebo":
        return -(-job.placebos // job.parts)
    return -(-(job.placements if bits in (0.0, job.headline) else max(1, job.placements // 3)) // job.parts)


def _place(
    name: str, days: int, volumes: npt.NDArray[np.int64], visits: Sequence[npt.NDArray[np.int64]],
    rng: np.random.Generator,
) -> tuple[int, int]:  # fmt: skip
    """A random key, or where its owner never calls as the story needs it, another, of its class if any; and a day."""
    last = max(1, days - int(days_of(name)))
    possible = np.arange(min(FIRST_DAY, last - 1), last)
    if name in TOGETHER:
        possible = possible[:4]
    first = int(rng.integers(len(visits)))
    others = rng.permutation(len(visits))
    others = others[np.argsort(volumes[others] != volumes[first], kind="stable")]
    for slot in (first, *others.tolist()):
        fitting = possible[fits(name, visits[slot], possible)]
        if len(fitting):
            return slot, int(rng.choice(fitting))
    raise ConfigError(f"no key is used as the story {name} needs it: take more keys or days")


def fits(
    name: str, visits: npt.NDArray[np.int64], first_day: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Whether a story may begin on these days in a key that is called in these half hours (sorted numbers)."""
    begin = START_US + first_day * DAY_US
    end = begin + int((days_of(name) - MARGIN_DAYS) * DAY_US)
    before, until = (np.searchsorted(visits, each // VISIT_US) for each in (begin, end))
    return np.asarray((until - before >= VISITS.get(name, 0)) & ((before > 0) | (name in FRESH)))
