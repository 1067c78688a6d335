"""Bytes that leave: responses larger than their routes usually give to this key, in one visit or little by little.

Detects: a key that reads more per request than it did: whole lists instead of pages, exports, other people's larger
  records; in one visit, or over days by a cumulative sum of visits that are each too small to tell.
Misses: bulk reads of answers of the usual size, which are requests and spike's; how many records an answer holds, which
  no event says: many objects one by one are enumeration's, a list of many is its bytes; answers of a route that nobody
  else uses, but for being larger than the key's own others; who mixes in as many smaller answers as larger ones;
  formats without response sizes (not covered, never quiet).
False alarms: a route whose answers grew, until other keys' answers have taught it; a customer whose lists grow fast;
  a first export.
Source: reference/detections.md no. 7 (Panther's and Sentinel's robust z of daily bytes; here per request, since bytes
  in total follow the requests, which spike judges, and one fact must not count twice); evidence.md section 5 (CUSUM).

How it works. Each answer with a body is compared with what its route answers to the partition's keys (`route_sizes`),
in standard deviations of ln(bytes), bounded; where the route is not known, with this key's own answers. The
visit's mean of these, against what visits of this key usually have, is Student's t; over visits a CUSUM adds up
t - 1 in nats, upwards only. Both in bits are counted over runs of visits of such keys, each by itself (`counted`,
what ships is keybench's development half), and the rarer one's share of visits is the score. By itself, since one
visit of a few large answers is common where a dozen of them within days are not: counted together, a sum of 28 bits
was as usual as a visit of 16, and slow exfiltration could not open an incident however long it went on. Counts may only
lower what the laws themselves say: keybench's answers are static files, and where sizes are log-normal, as records
are, 8 bits came 17 times as often as they were said to. For the same reason it is learned how far a key's answers
scatter within a visit (`noise`). Answers of errors and without a body say nothing. What is under an incident is not
learned, and the sum begins anew: what an incident has told is used up. What is usual of these grows twofold in 28 days
at most (`growth`).
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors import route_sizes
from detectors.compile import compiled
from detectors.counted import BINS, add_visit, begins_run, hour_of, log_share, raise_run
from detectors.detector import ERROR_NONE, SEES_BYTES, Context, Detector, attested
from detectors.fusion import Settings, visits_group
from detectors.growth import held, limit, reach
from detectors.log_sizes import LAW, learn_held, spread, usual
from detectors.shipped_counts import EGRESS, EGRESS_SUM
from detectors.surprise import LN2, bits_of, evidence_of, quantise, student_tail
from detectors.teaching import teaches

KINDS: Final = 2
SEVERAL_BITS: Final = 1.0  # the rarer of two: the visit, the sum over visits
GOES_ON_BITS: Final = 1.0
"""Of attacks that go on, half come to any level of the sum [judged]: to have reached it weighs that much less."""
ODD: Final = 2.0  # standard deviations: below, no tail is worked out
FIRST_VARIANCE: Final = 0.3
FIRST_SEEN: Final = 4.0
LEAST_VARIANCE: Final = 0.04
MEMORY: Final = 100.0  # visits
FREEDOM_MAX: Final = 30.0
NOISE: Final = 1.0  # variance of one answer's deviation, where the visit is judged at once: routes differ
NOISE_OF_KEY: Final = 0.25  # the same of one key's, where visits add up (keybench, development half: about .15)
NOISE_GAIN: Final = 1.0 / 32.0  # of one answer, up or down: the median hardly moves for a thief's few large ones
MEDIAN: Final = 0.455  # of a squared standard normal
NOISE_LEAST: Final = 0.03125
NOISE_MOST: Final = 8.0
NOISE_UNIT: Final = 4096.0
SUM_UNIT: Final = 64.0
DRIFT: Final = 1.0
"""Of t, per visit: with 1/2 the sums of 3 of 800 busy keys stood above 16 bits for weeks, since others had moved what
is usual of a route; with 1 that of one, and an attack's come as far above those (keybench, development half)."""
STEP_MOST: Final = 5.0  # of t, that one visit adds to the sum; the least is -LEAST_STEP
LEAST_STEP: Final = 3.0
SUM_MOST: Final = 62.0  # bits; `counted` tells no more apart
NO_FLOOR: Final = -8.0  # deviations; a route's answers deviate by a nat or so, so growth is held as it is in bytes
BODIES_MOST: Final = 60_000
DAY_US: Final = 86_400_000_000

STATE: Final = np.dtype(
    [
        ("sizes", LAW),  # of an answer with a body, one value a visit
        ("whole", LAW),  # of a visit's bytes
        ("mean", "f4"),  # of a visit's mean deviation from its routes
        ("variance", "f4"),
        ("seen", "u1"),  # visits behind them
        ("period", "u1"),  # `growth`'s, as `base`
        ("base", "u2"),
        ("added", "u2"),  # bits in 1/64; `slow` and `cusum` of former states had another drift, and no `noise`
        ("noise", "u2"),  # variance of one answer's deviation within its visit, in 1/4096; 0: nothing learned
        ("bytes", "f4"),  # of this visit
        ("logs", "f4"),  # sum of ln(bytes) of this visit
        ("off", "f4"),  # sum of deviations
        ("judged", "u2"),  # answers in `off`
        ("bodies", "u2"),  # answers in `logs`
        ("run_h", "u2"),  # hour at which the running run of visits began (`counted`)
        ("run_bin", "u1"),  # bin of its largest bits at once; 0: none
        ("sum_bin", "u1"),  # the same of the sum's
    ],
    align=True,
)
SHARED: Final = np.dtype(
    [
        ("visits", "f8", (KINDS,)),
        ("peaks", "f8", (KINDS, BINS)),  # runs, by what one visit reached
        ("sum_visits", "f8", (KINDS,)),  # visits since sums are counted: a former state has `visits` alone
        ("sum_peaks", "f8", (KINDS, BINS)),  # runs, by what the sum reached
        ("routes", route_sizes.TABLE),
    ],
    align=True,
)


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.egress]"""

    least_visits: float = 5.0  # of the key, until it is judged
    least_days: float = 7.0  # of its life; a first week's few sizes promise too much (keybench, development half)
    cap_bits: float = 24.0  # of evidence


@compiled
def judged(event: Any) -> bool:
    """Whether the event's caller held the key, as far as the format can tell, and the format shows sizes."""
    return int(event.sees) & SEES_BYTES != 0 and attested(event)


@compiled
def has_body(event: Any) -> bool:
    """Whether the answer's size says something of what was read."""
    return int(event.bytes_out) > 0 and int(event.error) == ERROR_NONE


@compiled
def grown(visit: Any, config: Any) -> bool:
    """Whether enough is known of the key."""
    age_us = int(visit.start_us) - int(visit.first_seen_us)
    return int(visit.ordinal) >= config.least_visits and age_us >= config.least_days * DAY_US


@compiled
def deviation(state: Any, shared: Any, route: int, log_bytes: float) -> tuple[bool, float]:
    """Whether there is anything to compare with, and how far above it this answer is, in standard deviations."""
    known, off = route_sizes.off_by(shared.routes, route, log_bytes)
    if known:
        return True, off
    if float(state.sizes.seen) <= 0.0:
        return False, 0.0
    return True, route_sizes.bounded(log_bytes - np.float64(state.sizes.mean), spread(state.sizes))


@compiled
def sum_bits(state: Any) -> float:
    """The cumulative sum over the visits before this one."""
    return int(state.added) / SUM_UNIT


@compiled
def noise_of(state: Any, least: float) -> float:
    """Variance of one answer's deviation within its visit: as learned of this key, `least` at least."""
    return max(least, int(state.noise) / NOISE_UNIT)


@compiled
def learn_noise(state: Any, off: float) -> None:
    """One answer that deviates so far, after `judged` others of its visit: what differs from these is noise."""
    before = int(state.judged)
    if before == 0:
        return
    far = off - np.float64(state.off) / before
    noise = noise_of(state, 0.0) if int(state.noise) > 0 else NOISE_OF_KEY
    above = far * far * before / (before + 1.0) > MEDIAN * noise
    noise *= 1.0 + NOISE_GAIN if above else 1.0 - NOISE_GAIN
    state.noise = int(max(NOISE_LEAST, min(NOISE_MOST, noise)) * NOISE_UNIT)


@compiled
def visit_t(state: Any, off: float, count: float, noise: float) -> tuple[float, float]:
    """t of a visit whose deviations sum to `off` over `count` answers, and its degrees of freedom."""
    seen, mean, variance = np.float64(state.seen), np.float64(state.mean), np.float64(state.variance)
    if seen <= 0.0:
        seen, mean, variance = np.float64(FIRST_SEEN), np.float64(0.0), np.float64(FIRST_VARIANCE)
    error = math.sqrt(max(LEAST_VARIANCE, variance) * (1.0 + 1.0 / seen) + noise / count)
    return (off / count - mean) / error, min(FREEDOM_MAX, seen + 2.0)


@compiled
def bits_at_once(state: Any, off: float, count: float) -> float:
    """The visit's surprise, to 1/64."""
    t, freedom = visit_t(state, off, count, noise_of(state, NOISE))
    return quantise(bits_of(student_tail(t, freedom))) if t > ODD else 0.0


@compiled
def sum_after(state: Any, off: float, count: float) -> float:
    """The cumulative sum with this visit, in bits to 1/64."""
    t = visit_t(state, off, count, noise_of(state, NOISE_OF_KEY))[0]
    step = max(-LEAST_STEP, min(STEP_MOST, t)) - DRIFT
    return quantise(min(SUM_MOST, max(0.0, sum_bits(state) + step / LN2)))


@compiled
def rarities(state: Any, shared: Any, kind: int, off: float, count: float) -> tuple[float, float]:
    """-log2 of the share of such keys' visits that reach what this one does: at once, and by the sum.

    At most what the laws themselves say: of a standard normal t, a sum of so many nats of t - 1 comes with e^(-2 nats).
    Half of the sum at least must be of earlier visits: one visit's answers are judged at once, and beside spike's
    requests they would count for more (keybench, development half, seed 31: 101 incidents per 100,000 key-days for 72).
    """
    at_once = bits_at_once(state, off, count)
    total = min(2.0 * sum_bits(state), sum_after(state, off, count))
    once, over = 0.0, 0.0
    if at_once > 0.0:
        once = min(at_once, -log_share(EGRESS[kind], shared.peaks[kind], shared.visits[kind], at_once))
    if total > 0.0:
        over = -log_share(EGRESS_SUM[kind], shared.sum_peaks[kind], shared.sum_visits[kind], total)
        over = min(2.0 * total, over)
    return once, over


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Bits of the visit's answers so far, this one included; a = the usual answer's bytes, b = this visit's, below 0
    where it is the sum over visits that tells.
    """
    if not judged(event):
        return
    reading.covered = 1
    if not has_body(event) or not grown(visit, config):
        return
    log_bytes = math.log(float(event.bytes_out))
    known, off = deviation(state, shared, int(event.route), log_bytes)
    if not known:
        return
    count = int(state.judged) + 1.0
    at_once, total = rarities(state, shared, visits_group(visit), np.float64(state.off) + off, count)
    if max(at_once, total) <= 0.0:
        return
    reading.bits = quantise(max(0.0, max(at_once, total) - SEVERAL_BITS))
    evidence = max(evidence_of(at_once - SEVERAL_BITS), total - SEVERAL_BITS - GOES_ON_BITS)
    reading.lr_stranger = quantise(min(float(config.cap_bits), max(0.0, evidence)))
    reading.lr_insider = reading.lr_stranger
    reading.observed = (np.float64(state.bytes)) + float(event.bytes_out)
    reading.low = usual(state.whole, -1.65)
    reading.median = usual(state.whole, 0.0)
    reading.high = usual(state.whole, 1.65)
    reading.a = usual(state.sizes, 0.0)
    mean_bytes = math.exp(min(60.0, ((np.float64(state.logs)) + log_bytes) / (int(state.bodies) + 1.0)))
    reading.b = mean_bytes if at_once >= total else -mean_bytes


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """The answer into its visit, and into what is known of its route."""
    if not judged(event) or not has_body(event) or int(state.bodies) >= BODIES_MOST:
        return
    log_bytes = math.log(float(event.bytes_out))
    known, off = deviation(state, shared, int(event.route), log_bytes)
    if known:
        if weight > 0.0:
            learn_noise(state, off)
        state.off = np.float64(state.off) + off
        state.judged += 1
    state.bytes = (np.float64(state.bytes)) + float(event.bytes_out)
    state.logs = (np.float64(state.logs)) + log_bytes
    state.bodies += 1
    if weight > 0.0 and teaches(visit):
        anew = int(visit.anew) != 0
        route_sizes.teach(shared.routes, int(event.route), int(event.slot), log_bytes, int(event.ts_us), anew)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit ended: its sizes into the forecasts, its deviation into the sum; or all of it dropped.

    A visit without an attested event leaves the sum alone: who knows the key's id could else take it back.
    """
    if weight > 0.0 and int(state.bodies) > 0:
        if int(state.judged) > 0:
            learn_visit(state, shared, visit, config)
        learn_held(state.sizes, visit, math.exp((np.float64(state.logs)) / int(state.bodies)), 0.0)
        learn_held(state.whole, visit, np.float64(state.bytes), 0.0)
    elif int(visit.tainted) == 1:
        state.added = 0
    state.bytes = 0.0
    state.logs = 0.0
    state.off = 0.0
    state.judged = 0
    state.bodies = 0


@compiled
def count_run(state: Any, shared: Any, visit: Any, at_once: float, total: float) -> None:
    """One visit more of such keys; where it has bits, the key's run of visits has come to these."""
    kind = visits_group(visit)
    add_visit(shared.visits, shared.peaks, kind)
    add_visit(shared.sum_visits, shared.sum_peaks, kind)
    if max(at_once, total) <= 0.0:
        return
    hour = hour_of(visit)
    if begins_run(int(state.run_h), hour):
        state.run_h = hour
        state.run_bin = 0
        state.sum_bin = 0
    if at_once > 0.0:
        state.run_bin = raise_run(shared.peaks[kind], at_once, int(state.run_bin))
    if total > 0.0:
        state.sum_bin = raise_run(shared.sum_peaks[kind], total, int(state.sum_bin))


@compiled
def learn_visit(state: Any, shared: Any, visit: Any, config: Any) -> None:
    """Count what the visit reached, move the sum, learn what is usual."""
    off, count = np.float64(state.off), float(int(state.judged))
    if grown(visit, config):
        total = sum_after(state, off, count)
        if teaches(visit):
            count_run(state, shared, visit, bits_at_once(state, off, count), total)
        state.added = int(total * SUM_UNIT)
    seen, mean, variance = np.float64(state.seen), np.float64(state.mean), np.float64(state.variance)
    if seen <= 0.0:
        seen, mean, variance = np.float64(FIRST_SEEN), np.float64(0.0), np.float64(FIRST_VARIANCE)
    gain = 1.0 / (seen + 1.0)
    far = off / count - mean
    scatter = (noise_of(state, NOISE_OF_KEY) - NOISE_OF_KEY) / count  # `visit_t` adds it to what visits differ by
    after, width = mean + gain * far, max(0.0, variance + gain * (far * far * (1.0 - gain) - scatter - variance))
    before, beyond = reach(mean, variance, LEAST_VARIANCE), reach(after, width, LEAST_VARIANCE)
    most = limit(state, visit, before, beyond, NO_FLOOR)
    state.mean, state.variance = held(mean, variance, after, width, LEAST_VARIANCE, most)
    state.seen = int(min(seen + 1.0, MEMORY))


UNITS: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size_words(size: float) -> str:
    """Bytes for people, two digits: "38 MB", "1.4 kB"."""
    for unit, name in UNITS:
        if size >= 0.995 * unit:
            return f"{float(f'{size / unit:.2g}'):g} {name}"
    return f"{size:.0f} bytes"


def explain(reading: Any, context: Context) -> str:
    """Such as "38 MB in a visit where 2 MB [400 kB-9 MB] are usual, 180 kB an answer where 40 kB are".

    Of a sum over visits, whose last one may be as usual: "visit after visit larger answers than these routes give to
    other keys, 56 kB an answer in this one where 40 kB are usual"; "of late somewhat larger" while that is no finding.
    """
    if reading.b < 0.0:
        often = "visit after visit" if reading.bits >= Settings().finding_bits else "of late somewhat"
        words = f"{often} larger answers than these routes give to other keys"
        here = f", {size_words(-reading.b)} an answer in this one where {size_words(reading.a)} are usual"
        return words + (here if -reading.b > 1.2 * reading.a else "")
    usual_sizes = f"{size_words(reading.median)} [{size_words(reading.low)}-{size_words(reading.high)}] are usual"
    words = f"{size_words(reading.observed)} in a visit where {usual_sizes}"
    if reading.b > 1.2 * reading.a:
        return f"{words}, {size_words(reading.b)} an answer where {size_words(reading.a)} are"
    return f"{words}, larger answers than these routes give to other keys"


DETECTOR: Final = Detector(
    name="egress",
    family="data",
    unit="bytes of a visit",
    state=STATE,
    shared=SHARED,
    config=Egress(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
