"""One operation over and over: how many more calls are of one operation than of all others, without a pause.

For spike: volume alone is what a launch or the owner's own load test brings, too, but these bring the key's own mix of
operations; who uses a key for what it was not made for calls one of them, hundreds of times. The surplus is Boyer's and
Moore's majority count (1981): one up for a call of the operation that leads, one down for any other, and at 0 the next
one leads; two numbers hold it for any number of operations. A mixed visit's stays small however long the visit is, that
of a visit of one operation is its length. From LEAST on it goes on from visit to visit, until half an hour's pause: a
visit ends after an hour, whatever goes on. Its largest value in a visit is compared with the largest that the key's
visits have had: 4 bits a doubling, from four times on, counted over runs of visits of such keys (`counted`). Fewer are
what growth and the next record bring: a key's nth visit is its longest so far once in n, by little. Of a key whose
visits are of one operation anyway, by half of their calls on average (a poller), it speaks from sixteen times on, and
never where it has few visits: there more of it is more requests, as a launch or a load test brings. It says nothing of
a first week; a key of few visits need not bring a second one: a week after its first it is judged by what it brought,
from sixteen times on, too.
Calls that fail do not count: a client that tries again is no use of the key (errors judges it), and neither do those
without a route. What is usual at most grows by root 2 in 28 days of use, like a crowd (`growth`), so by two in any.
False alarms: a first export through one route, page by page; a loop in the owner's program; a job that runs every ten
minutes instead of every hour, which has no pause any more and comes to sixteen times as much within hours.
Source: keybench, development half, calls alone (seeds 31 and 3, 27,508 key-days, 300 placements of each story). Eight
times what was usual at most: no untouched day, .73 of resource abuse, .06 of load tests, .01 of growth; sixteen times:
.63 of resource abuse, and none of the innocent ones (of pollers .73 and .35; .12 of their growth is above four times).
By visits apart (seed 31): .67 and .53. Of 4,156 visits of keys that had 1 to 9 in a week or more, none came to eight
times the most (seeds 31 and 41); 1,033 of them were not judged before. Fields are spike's.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled
from detectors.counted import BINS, add_visit, log_share, raise_run
from detectors.detector import ERROR_NONE, VISIT_GAP_US, Context
from detectors.fusion import visits_group
from detectors.growth import GROWN
from detectors.shipped_counts import REPETITION
from detectors.surprise import LN2, log2_of, quantise
from detectors.teaching import KNOWN_US, teaches

KINDS: Final = 2
LEAST: Final = 30  # surplus calls; fewer are a page or two of a list
UNIT: Final = 16.0  # of a stored surplus: its natural logarithm, rounded down
USUAL_LEAST: Final = 33  # 8 calls: less is never taken for what is usual at most; below it `usual_same` is a stage:
LEARNING: Final = 1  # a run of visits has begun since 0, its largest is in `same_base`
ROOT_2: Final = 5  # in UNIT, rounded down
DOUBLING_BITS: Final = 4.0  # until they are counted
FOURFOLD_BITS: Final = 8.0
"""Below, nothing is said. "30 of 0-27" had 9.5 bits of evidence, since that is 1 of 3,600 visits of busy keys:
who calls one operation hundreds of times passes through it, and most that come so far stop there."""
POLLS: Final = 128  # of 255: half of the calls
POLLER_BITS: Final = 16.0  # 16 times
SHARE_CALLS: Final = 4  # of a visit, until it says what the key's share is
SHARE_VISITS: Final = 16.0
SEVERAL_BITS: Final = 1.0  # one of several things that spike looks at
REPETITION_FIELDS: Final = [("same_visits", "f8", (KINDS,)), ("same_peaks", "f8", (KINDS, BINS))]
"""Of spike's SHARED: visits, and runs of them by their largest bits, by kind of key (few visits, many)."""


@compiled
def mark_of(route: int) -> int:
    """An operation in one byte: one of 256 others passes for it."""
    return (int(route) * 0x9E3779B1 & 0xFFFFFFFF) >> 24


@compiled
def repeats(event: Any) -> bool:
    """Whether the event counts here."""
    return int(event.route) != 0 and int(event.error) == ERROR_NONE


@compiled
def surplus_with(state: Any, event: Any) -> int:
    """The leading operation's surplus with this call of it; 0 where another leads, or after a pause."""
    if not repeats(event) or int(state.same) == 0 or mark_of(event.route) != int(state.same_mark):
        return 0
    return 0 if int(event.ts_us) - int(state.last_us) >= VISIT_GAP_US else int(state.same) + 1


@compiled
def usual_most(state: Any, visit: Any) -> int:
    """What is usual at most, stored; 0 until a week was learned, of a key of few visits until one has passed."""
    if int(state.usual_same) >= USUAL_LEAST:
        return int(state.usual_same)
    sparse = visits_group(visit) == 0 and int(visit.start_us) - int(visit.first_seen_us) >= KNOWN_US
    return max(USUAL_LEAST, int(state.same_base)) if sparse and int(state.usual_same) == LEARNING else 0


@compiled
def raw_bits(state: Any, visit: Any, surplus: float) -> float:
    """4 bits for each doubling of the usual most, to 1/64; 0 below LEAST and four times, and until it is known."""
    usual = usual_most(state, visit) if surplus >= LEAST else 0
    if usual == 0:
        return 0.0
    bits = quantise(max(0.0, DOUBLING_BITS * (log2_of(surplus) - usual / UNIT / LN2)))
    polls = int(state.same_share) >= POLLS
    if polls and visits_group(visit) == 0:
        return 0.0
    unsure = polls or int(state.usual_same) < USUAL_LEAST
    return bits if bits >= (POLLER_BITS if unsure else FOURFOLD_BITS) else 0.0


@compiled
def same_bits(state: Any, shared: Any, visit: Any, surplus: int) -> float:
    """-log2 of the share of visits of such keys with this or more, to 1/64."""
    raw = raw_bits(state, visit, float(surplus))
    if raw <= 0.0:
        return 0.0
    kind = visits_group(visit)
    share = log_share(REPETITION[kind], shared.same_peaks[kind], shared.same_visits[kind], raw)
    return quantise(max(0.0, -share - SEVERAL_BITS))


@compiled
def describe_same(state: Any, visit: Any, reading: Any, surplus: int) -> None:
    """What is usual at most, and that it is no window: a = -1."""
    reading.observed = float(surplus)
    reading.low = 0.0
    reading.high = math.floor(math.exp(usual_most(state, visit) / UNIT) + 0.5)
    reading.median = math.floor(0.5 * reading.high)
    reading.a = -1.0
    reading.b = -1.0


def same_words(reading: Any, context: Context) -> str:
    """Such as "168 calls of GET /v1/items more than of all others on end, where 8 are the most"."""
    name = f"{context.method} {context.route}".strip() or "one operation"
    usual = f"where {reading.high:.0f} are the most"
    return f"{reading.observed:.0f} calls of {name} more than of all others on end, {usual}"


@compiled
def count_same(state: Any, event: Any) -> None:
    """One call more in the visit."""
    if not repeats(event):
        return
    mark, surplus = mark_of(event.route), int(state.same)
    if surplus == 0 or mark == int(state.same_mark):
        state.same_mark = mark
        state.same = min(65_000, surplus + 1)
        state.same_most = max(int(state.same_most), stored(surplus + 1))
    else:
        state.same = surplus - 1


@compiled
def stored(surplus: int) -> int:
    """In one byte; at least 1, so that 0 is none."""
    return max(1, min(255, int(UNIT * math.log(float(surplus)))))


@compiled
def settle_same(state: Any, shared: Any, visit: Any, weight: float) -> None:
    """The visit ended: count what it came to, and learn it, or drop it. Before the crowds, whose visits it asks for."""
    most = int(state.same_most)
    if weight > 0.0 and most > 0:
        if teaches(visit):
            count_run(state, shared, visits_group(visit), raw_bits(state, visit, math.exp((most + 0.5) / UNIT)))
        learn_share(state, visit, most)
        learn_most(state, most, int(state.crowd_visits) < GROWN or int(visit.anew) != 0)
    if weight <= 0.0 or int(state.same) < LEAST:
        state.same = 0
    state.same_most = 0


@compiled
def learn_most(state: Any, most: int, free: bool) -> None:
    """What is usual at most with this visit; free: held by nothing, as are the visits of the first run."""
    before = int(state.usual_same)
    if before < USUAL_LEAST:
        state.same_base = max(int(state.same_base), most)
        return
    after = max(before, most)
    if int(state.same_base) == 0 or free:
        state.same_base = after if free else before
    state.usual_same = after if free else max(before, min(after, int(state.same_base) + ROOT_2))


@compiled
def begin_run(state: Any) -> None:
    """A run of visits begins, a week or more after the last one: the first whole one is what is usual.

    So a key that is new, or whose state is older than this count, is learned for a week before anything is said. Where
    the count changes, `usual_same` needs another name: what is usual of single hours is no measure of a day's.
    """
    state.same_bin = 0
    if int(state.usual_same) >= USUAL_LEAST:
        return
    if int(state.usual_same) == LEARNING:
        state.usual_same = max(USUAL_LEAST, int(state.same_base))
    else:
        state.usual_same = LEARNING
    state.same_base = 0


@compiled
def learn_share(state: Any, visit: Any, most: int) -> None:
    """By how many of its calls the visit's leading operation led, into the mean of SHARE_VISITS visits."""
    if int(visit.events) < SHARE_CALLS:
        return
    share = min(255.0, 255.0 * math.exp(most / UNIT) / int(visit.events))
    before = float(int(state.same_share))
    state.same_share = max(1, int((share if before == 0.0 else before + (share - before) / SHARE_VISITS) + 0.5))


@compiled
def count_run(state: Any, shared: Any, kind: int, raw: float) -> None:
    """One visit more of such keys, and what its run has come to (`window_peaks.turn_run` begins them)."""
    add_visit(shared.same_visits, shared.same_peaks, kind)
    if raw > 0.0:
        state.same_bin = raise_run(shared.same_peaks[kind], raw, int(state.same_bin))
