"""Who may teach what its peers share: keys that are known for a week, and all of them while nothing is older.

Whoever makes keys at will would else teach the whole partition what is usual, by keys that are made for it. `fuse`
asks once per visit, so every detector has the same answer (`teaches`), and the calibration, too; a key's own forecast
learns all the same. While the partition itself knows nothing older than a week, young keys are all there is: they
teach, or a new deployment would have shipped guesses for a week and then its first week's keys alone.

A key that has become old enough brings what it knows (`FIRST`): in geography each key counts once with its networks.

No key counts for more than a key-day in a day: the peers' rate (`request_level.tell_peers`) is told one hour of a day,
and whatever counts visits is told 48 of a key at most, since a visit ends after an hour and the next begins after half
of one. Shares are taken of visits, so all the visits of a key-day are counted.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled

KNOWN_US: Final = 7 * 86_400_000_000  # issue 5, section 3
SILENT: Final = 0
TEACHES: Final = 1
FIRST: Final = 2
QUIET: Final = 3
"""Of VISIT's `teaches`. FIRST: no learned visit of this key has taught yet; QUIET: silent, but it has taught before."""


@compiled
def lesson_of(visit: Any, since_us: int, ts_us: int, learned: bool) -> int:
    """Of the visit that begins at `ts_us`; `visit` still has the last one's, of which `learned` says what became.

    since_us: the first event that the partition knows of.
    """
    before = int(visit.teaches)
    taught = before in (TEACHES, QUIET) or (before == FIRST and learned)
    if too_young(visit.first_seen_us, since_us, ts_us):
        return QUIET if taught else SILENT
    return TEACHES if taught else FIRST


@compiled
def too_young(first_seen_us: int, since_us: int, ts_us: int) -> bool:
    """Whether the key teaches nobody at `ts_us`: it is known for less than a week, and the partition for longer."""
    return bool(ts_us - first_seen_us < KNOWN_US and ts_us - since_us >= KNOWN_US)


@compiled
def teaches(visit: Any) -> bool:
    """Whether what this visit brings counts among peers."""
    return int(visit.teaches) == TEACHES or int(visit.teaches) == FIRST


@compiled
def tell_levels(counts: Any, levels: int, kept: float) -> None:
    """One visit more that came to the first `levels` of them; all are halved where more than `kept` are counted."""
    if counts[0] > kept:
        for j in range(len(counts)):
            counts[j] *= 0.5
    for j in range(levels):
        counts[j] += 1.0
