"""Outside of keybench: do findings come as often as they say, and are plain attacks found?

Run: `python -m tests.evaluation.plain [--seed 11] [--keys 120] [--days 50]` (three minutes of one core). Traffic and
attacks are `plain_world`'s. First the untouched keys: for each detector, of visits after two weeks those with a finding
of so many bits, by the share that the bits say (1 is honest, above 1 too loud); incidents per 100,000 key-days. Then
for each attack, on keys of each kind apart, how many open an incident, and after how long. Nothing is tuned by it:
keybench's own traffic is what ships is counted over, this says what that is worth elsewhere.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from detectors import DETECTORS
from detectors.detector import VISIT_GAP_US, VISIT_MAX_US
from pipeline.runners.replay import Outcome, ReplayOptions, run
from pipeline.times import micros
from schemas.event import Event
from tests.evaluation.plain_world import ATTACKS, DAY_US, KINDS, START_US, US, Attack, Plain, plain_keys
from tests.evaluation.tables import table

BITS: Final = (6, 8, 10, 12, 14)
BURN_IN_DAYS: Final = 14
ATTACK_DAY: Final = 30
ATTACKED: Final = 12  # keys, as many of each kind


def judged(events: Sequence[Event]) -> Outcome:
    """The worker's core over these events."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(b"\n".join(map(msgspec.json.encode, sorted(events, key=lambda each: each.ts_us))))
        return run(ReplayOptions(paths=(path,)))


def visits_of(events: Sequence[Event]) -> dict[str, list[int]]:
    """When each key's visits began, us."""
    last: dict[str, int] = {}
    begun: dict[str, list[int]] = defaultdict(list)
    for event in sorted(events, key=lambda each: each.ts_us):
        mine = begun[event.key_id]
        at = event.ts_us
        if not mine or at - last[event.key_id] > VISIT_GAP_US or at - mine[-1] > VISIT_MAX_US:
            mine.append(at)
        last[event.key_id] = at
    return begun


def loudness(outcome: Outcome, events: Sequence[Event]) -> dict[str, list[float]]:
    """Detector -> for each of BITS how many times as often visits have a finding of so many bits as these say."""
    since_us, begun = START_US + BURN_IN_DAYS * DAY_US, visits_of(events)
    visits = sum(at >= since_us for mine in begun.values() for at in mine)
    most: dict[tuple[str, str, int], float] = defaultdict(float)
    for *_, line in outcome.finding_lines:
        row = msgspec.json.decode(line)
        if row["at"] >= since_us:
            visit = bisect.bisect_right(begun[row["key_id"]], row["at"])
            each = row["detector"], row["key_id"], visit
            most[each] = max(most[each], row["bits"])
    return {
        each.name: [sum(bits >= least for (name, *_), bits in most.items() if name == each.name) / visits * 2.0**least
                    for least in BITS]
        for each in DETECTORS
    }  # fmt: skip


def untouched(keys: Sequence[Plain], days: int) -> list[Event]:
    """All that the owners do."""
    return [call for key in keys for day in range(days) for call in key.day(day)]


def attacked(attack: Attack, seed: int) -> dict[str, float | None]:
    """Key -> seconds from the attack's first call to the incident; None: none opened within a day."""
    keys = plain_keys(2 * ATTACKED, seed)
    events = untouched(keys, ATTACK_DAY + 5)
    begin_us = {}
    for key in keys[:ATTACKED]:
        day_us = START_US + ATTACK_DAY * DAY_US
        mine = [each.ts_us for each in events if each.key_id == key.name and each.ts_us > day_us]
        planted = attack(key, mine[len(mine) // 2] + 120 * US if mine else day_us + 2 * DAY_US)
        begin_us[key.name] = planted[0].ts_us
        events += planted
    after: dict[str, float | None] = dict.fromkeys(begin_us)
    for incident in judged(events).incidents.values():
        since = micros(incident.opened_at) - begin_us.get(incident.key_id, 0)
        first = after.get(incident.key_id)
        if incident.key_id in begin_us and 0 <= since < DAY_US:
            after[incident.key_id] = since / US if first is None else min(first, since / US)
    return after


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("seed", 11), ("keys", 120), ("days", 50)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    events = untouched(plain_keys(args.keys, args.seed), args.days)
    outcome = judged(events)
    rows = [(name, *(f"{each:.2f}" for each in loud)) for name, loud in loudness(outcome, events).items() if any(loud)]
    sys.stdout.write(table(("detector", *(f"{bits} bits" for bits in BITS)), rows) + "\n\n")
    sys.stdout.write(f"{len(outcome.incidents)} incidents in {args.keys * args.days:,} key-days\n\n")
    rows = []
    for name, attack in ATTACKS.items():
        after = attacked(attack, args.seed)
        found = sorted(each for each in after.values() if each is not None)
        by_kind = [sum(after[key] is not None for key in list(after)[kind :: len(KINDS)]) for kind in range(len(KINDS))]
        rows.append((name, *map(str, by_kind), f"{median(found):.0f} s" if found else ""))
    head = ("attack", *(f"{kind} (of {ATTACKED // len(KINDS)})" for kind in KINDS), "median")
    sys.stdout.write(table(head, rows) + "\n")


if __name__ == "__main__":
    main()
