"""The 16 innocent but tricky scenarios of keybench, and the placebo; the same contract as `attacks`.

What a scenario changes or adds is marked `planted`: an incident that opens there is a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.detector import NET_HOSTING
from pipeline.evaluation.attacks import Plan, Stage, own_lines
from pipeline.evaluation.sources import Ints
from pipeline.evaluation.world import DAY_US, DENIED, HOUR_US, NO_ZONE, US, VISIT_US, dress, new_place

Array = npt.NDArray[Any]


def _marked(calls: Array) -> Plan:
    return Plan(calls[:0], calls)


def _extra(stage: Stage, at_us: Ints) -> Array:
    """More of the owner's own calls at these times, from where he is then."""
    calls = dress(stage.key, stage.world, np.sort(at_us), stage.rng)
    calls["place"], calls["client"] = stage.owners(calls["ts_us"])
    calls["planted"] = 1
    return calls[calls["ts_us"] < stage.end_us]


def _spread(stage: Stage, start_us: int, hours: float, count: int) -> Ints:
    return start_us + (stage.rng.random(count) * hours * HOUR_US).astype(np.int64)


def deploy(stage: Stage) -> Plan:
    """A release: from then on another version line of the client; at first a burst of calls, one in ten fails."""
    at = stage.some_time(1.0)
    calls = stage.base.copy()
    later = calls["ts_us"] >= at
    family = stage.world.words.clients["client"]
    same = np.flatnonzero(family == family[stage.owners(at)[1]])
    calls["client"][later] = stage.rng.choice(same)
    calls["planted"][later] = 1
    burst = _extra(replace(stage, base=calls), _spread(stage, at, 0.3, 10 + int(stage.known.calls_a_day / 8)))
    failed = stage.rng.random(len(burst)) < 0.1
    burst["status"] = np.where(failed, 500, burst["status"])
    return Plan(calls[:0], _sorted(calls, burst))


def retry_storm(stage: Stage) -> Plan:
    """The API fails for everybody for 40 minutes (the same ones for all keys of a day); clients try again."""
    begin = stage.start_us + DAY_US + 14 * HOUR_US
    calls = stage.base.copy()
    hit = (calls["ts_us"] >= begin) & (calls["ts_us"] < begin + 40 * 60 * US)
    count = 5 + int(hit.sum()) * 5
    retries = _extra(stage, _spread(stage, begin, 40 / 60, count))
    for part in (calls, retries):
        failing = (part["ts_us"] >= begin) & (part["ts_us"] < begin + 40 * 60 * US)
        part["status"] = np.where(failing & (stage.rng.random(len(part)) < 0.9), 503, part["status"])
    calls["planted"] = hit
    return Plan(calls[calls["planted"] == 0], _sorted(calls[hit], retries))


def misconfigured_403(stage: Stage) -> Plan:
    """For days one route is refused, and the integration asks every twenty minutes."""
    at = np.arange(stage.start_us + DAY_US // 2, stage.end_us, 20 * 60 * US)
    calls = _extra(stage, at + (stage.rng.random(len(at)) * 30 * US).astype(np.int64))
    calls["operation"] = own_lines(stage, 1)["operation"][0]
    calls["status"], calls["outcome"] = 403, DENIED
    return Plan(stage.base, calls)


def daylight_saving(stage: Stage) -> Plan:
    """The owner's clock moves by an hour, either way; what is declared of the zone moves with it."""
    calls = stage.base.copy()
    step = int(stage.rng.choice([-1, 1]))
    calls["ts_us"] = calls["ts_us"] - step * HOUR_US
    calls["zone_h"] = np.where(calls["zone_h"] == NO_ZONE, NO_ZONE, calls["zone_h"] + step)
    calls["planted"] = 1
    return _marked(calls[(calls["ts_us"] >= stage.start_us) & (calls["ts_us"] < stage.end_us)])


def holidays(stage: Stage) -> Plan:
    """Five days without use, then half of what was left undone on the day after, from where the owner is then."""
    back = stage.start_us + 5 * DAY_US
    away = stage.base["ts_us"] < back
    rest = stage.base[~away].copy()
    shifted = stage.base[away].copy()
    shifted["ts_us"] = back + (shifted["ts_us"] - stage.start_us) % DAY_US
    half = shifted[stage.rng.random(len(shifted)) < 0.5]
    half["place"], half["client"] = replace(stage, base=rest).owners(half["ts_us"])
    rest["planted"], half["planted"] = 1, 1
    return _marked(_sorted(rest, half))


def batch(stage: Stage) -> Plan:
    """A job that the key has never done: at 02:00, once a week or once in thirty days, ten hours' worth of calls."""
    starts = stage.start_us + np.arange(0, int(stage.days), int(stage.rng.choice([7, 30]))) * DAY_US + 2 * HOUR_US
    count = 20 + int(stage.known.calls_a_day / 24 * 10)
    return Plan(stage.base, _extra(stage, np.concatenate([_spread(stage, int(s), 0.7, count) for s in starts])))


def growth(stage: Stage) -> Plan:
    """5 % more a day, and from the middle on three times as much: a launch."""
    day = (stage.base["ts_us"] - stage.start_us) / DAY_US
    wanted = 1.05**day * np.where(day > stage.days / 2, 3.0, 1.0) - 1.0
    more = stage.rng.poisson(wanted)
    at = np.repeat(stage.base["ts_us"], more)
    return Plan(stage.base, _extra(stage, at + (stage.rng.normal(0, 600, len(at)) * US).astype(np.int64)))


def viral_spike(stage: Stage) -> Plan:
    """Eight times the traffic for five hours, from where it always comes."""
    begin = stage.active_time()
    count = 8 * max(4, int(stage.known.hourly[begin // HOUR_US % 24] * 5))
    return Plan(stage.base, _extra(stage, _spread(stage, begin, 5.0, count)))


def roaming(stage: Stage) -> Plan:
    """Every visit from another address of the place's network, which the key has never had."""
    calls = stage.base.copy()
    calls["turn"] = 1 + (calls["ts_us"] - stage.start_us) // VISIT_US
    calls["planted"] = 1
    return _marked(calls)


def _elsewhere(stage: Stage, begin: Ints, end: Ints, place: int) -> Plan:
    """The owner's calls within these spans come from `place`."""
    calls = stage.base.copy()
    inside = np.zeros(len(calls), np.bool_)
    for a, b in zip(begin, end, strict=True):
        inside |= (calls["ts_us"] >= a) & (calls["ts_us"] < b)
    calls["place"] = np.where(inside, place, calls["place"])
    calls["planted"] = inside
    return Plan(calls[~inside], calls[inside])


def vpn_flips(stage: Stage) -> Plan:
    """Between home and one VPN egress several times a day."""
    words = stage.world.words
    hosting = np.flatnonzero(words.places["net_flags"][: words.siblings] & NET_HOSTING > 0)
    begin = stage.start_us + DAY_US // 2 + np.arange(int(stage.days * 5)) * (DAY_US // 5)
    return _elsewhere(stage, begin, begin + 2 * HOUR_US, int(stage.rng.choice(hosting)))


def travelling_employee(stage: Stage) -> Plan:
    """A flight's hours without a call, then five days from another country."""
    leaves = stage.start_us + DAY_US
    lands = leaves + int(stage.rng.uniform(6, 14) * HOUR_US)
    base = stage.base[(stage.base["ts_us"] < leaves) | (stage.base["ts_us"] >= lands)]
    flown = Stage(stage.key, stage.world, stage.known, base, stage.start_us, stage.days, stage.rng)
    place = new_place(stage.key, stage.world, stage.rng, abroad=True)
    return _elsewhere(flown, np.array([lands]), np.array([lands + 5 * DAY_US]), place)


def region_failover(stage: Stage) -> Plan:
    """All of a day's keys move at 15:00 to the same other region of their provider, for six hours."""
    words = stage.world.words
    hosting = np.flatnonzero(words.places["net_flags"][: words.siblings] & NET_HOSTING > 0)
    begin = np.array([stage.start_us + DAY_US + 15 * HOUR_US])
    region = int(hosting[stage.start_us // DAY_US % len(hosting)])
    return _elsewhere(stage, begin, begin + 6 * HOUR_US, region)


def new_keys(stage: Stage) -> Plan:
    """The key's first days: nothing is known of it yet."""
    calls = stage.base.copy()
    calls["planted"] = 1
    return _marked(calls)


def ci_runners(stage: Stage) -> Plan:
    """Jobs of some calls, each from a random address of hosting networks, as they always did for this key."""
    words = stage.world.words
    hosting = np.flatnonzero(words.places["net_flags"][: words.siblings] & NET_HOSTING > 0)
    calls = stage.base.copy()
    job = calls["ts_us"] // (HOUR_US // 2)
    _, which = np.unique(job, return_inverse=True)
    where = stage.rng.choice(hosting, int(which.max(initial=0)) + 1)
    calls["place"] = where[which]
    calls["planted"] = calls["ts_us"] >= stage.start_us + int(stage.days * DAY_US / 2)  # the first half it learns
    return Plan(calls[calls["planted"] == 0], calls[calls["planted"] == 1])


def load_test(stage: Stage) -> Plan:
    """Fifty times the pace for half an hour, from the owner's place and client, on the owner's routes."""
    begin = stage.active_time()
    count = min(3_000, max(100, int(25 * stage.known.hourly[begin // HOUR_US % 24])))
    return Plan(stage.base, _extra(stage, _spread(stage, begin, 0.5, count)))


def geo_update(stage: Stage) -> Plan:
    """A tenth of all addresses are placed elsewhere from a day on, the owner's too; and the log is in disorder."""
    calls = stage.base.copy()
    words = stage.world.words
    changed = stage.rng.random(len(words.addresses)) < 0.1
    changed[stage.key.homes] = True
    renamed = (calls["ts_us"] >= stage.start_us + DAY_US) & changed[calls["place"] % words.siblings]
    calls["place"] = np.where(renamed, calls["place"] % words.siblings + 2 * words.siblings, calls["place"])
    calls["planted"] = 1
    return _marked(delivered(calls, stage.rng))


def delivered(calls: Array, rng: np.random.Generator) -> Array:
    """The key's calls as a shipper under stress brings them, once or twice; the log's order is by when they come.

    One in twenty is held back for up to a minute, one in a hundred for 3 to 30 minutes, which is beyond the lateness;
    one in fifty comes again within a minute.
    """
    calls = calls.copy()
    calls["request"] = np.arange(1, len(calls) + 1)
    fate, wait_s = rng.random(len(calls)), rng.random(len(calls))
    held_s = np.where(fate < 0.05, 60 * wait_s, np.where(fate < 0.06, 180 + 1_620 * wait_s, 0.0))
    calls["behind_us"] = (held_s * US).astype(np.int64)
    again = calls[rng.random(len(calls)) < 0.02]
    again["behind_us"] += (rng.uniform(0.2, 60, len(again)) * US).astype(np.int64)
    return np.concatenate([calls, again])


def placebo(stage: Stage) -> Plan:
    """The owner's own traffic through the same machinery: cut out, marked and put back as it was."""
    calls = stage.base.copy()
    calls["planted"] = 1
    return _marked(calls)


def _sorted(*parts: Array) -> Array:
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["ts_us"], kind="stable")]


INNOCENTS: Final[dict[str, Callable[[Stage], Plan]]] = {
    function.__name__: function
    for function in (
        deploy, retry_storm, misconfigured_403, daylight_saving, holidays, batch, growth, viral_spike, roaming,
        vpn_flips, travelling_employee, region_failover, new_keys, ci_runners, load_test, geo_update,
    )
}  # fmt: skip
"""name -> generator."""
DAYS: Final = {
    "misconfigured_403": 5.0, "holidays": 8.0, "batch": 31.0, "growth": 14.0, "vpn_flips": 5.0, "new_keys": 7.0,
    "travelling_employee": 8.0, "ci_runners": 14.0, "placebo": 14.0,
}  # fmt: skip
"""As in `attacks`."""
