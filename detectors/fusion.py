"""The fusion: which evidence of all detectors together opens, extends, escalates and closes an incident of a key.

Evidence adds as log likelihood ratios of named alternatives (reference/evidence.md, section 4), never as bits:
 visit rule  V = log2(1/2 * 2^(sum of lr_stranger) + 1/2 * 2^(sum of lr_insider)), the largest of the visit;
 slow rule   R <- (1 + R * 2^(-dt / 1 d)) * 2^V7 where V7 > 0, score log2 R: facts that are each too small for an
             incident and add up within days. V7 is `lr_stranger_slow` of clients and operations: a young client that
             comes back after an older one (a few bits each time), first deletions, administration, credentials.
             What an owner who moved brings for days (the same new network and client, visit after visit) is ONE fact:
             with V7 = "new for 7 days" over all visits a moved server had 100 bits, and two of three false alarms of
             keybench came from there.
A score is shown and judged as a return period in days of this key's use (`calibration`), each rule half the budget.
One incident per key at a time; one opening in 7 days, but by the visit rule after 24 h where it is `AGAIN` times rarer
than the last one: a key that has moved, of which nothing is learned meanwhile, told the same fact on seven days. An
incident that has seen no evidence for an hour, or is a week old, closes at that very moment of the log, whenever the
key's next event (or the watermark) shows it.
Only an event whose caller the gateway attests may open, escalate or extend: key ids are public, so anybody could
send refused requests in a key's name.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors import calibration
from detectors.compile import compiled
from detectors.counted import begins_run, hour_of
from detectors.surprise import LN2, log2_of, quantise
from detectors.teaching import teaches

FAMILIES: Final = ("network", "client", "operation", "volume", "outcome", "time", "declared", "data")
"""Position = bit in `families`."""
SLOW_FAMILIES: Final = 0b0000110  # client, operation
OPENED: Final = 1
EXTENDED: Final = 2
ESCALATED: Final = 3
CLOSED: Final = 4
ADOPTED: Final = 5
RULE_VISIT: Final = 1
RULE_SLOW: Final = 2
RULE_PROOF: Final = 3
KINDS: Final = ("", "opened", "extended", "escalated", "closed", "adopted")
RULES: Final = ("", "visit", "slow", "proof")
UNREVIEWED: Final = 1
REVIEWED: Final = 2
"""Of `taken`: who let it be learned, the seven days or a person (`feedback.confirm`)."""

DAY_US: Final = 86_400_000_000
FEW_VISITS: Final = 3.0  # a day
HOUR_US: Final = 3_600_000_000
SLOW_HALF_LIFE_US: Final = 1.0 * DAY_US  # 2 and 3 days find fewer (keybench, development half: .05, .03, .02 of macro)
SLOW_MOST: Final = 1e9
"""30 bits: more would only last for weeks."""
NOTHING_BITS: Final = -99.0
EVIDENCE_BITS: Final = 3.0
"""Log likelihood ratio of one event that keeps an incident open where no single detector has a finding."""
CRITICAL_FAMILIES: Final = 3
SERIES_US: Final = 7 * DAY_US
AGAIN: Final = 4.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of the fusion; `config_record(Settings())` is the array that the pass takes. Durations in us."""

    listed_days: float = 1_000.0  # 100 incidents per 100,000 key-days
    page_days: float = 10_000.0  # 10 incidents per 100,000 key-days
    finding_bits: float = 6.0
    idle_us: float = 60.0 * 60_000_000
    life_us: float = 7.0 * DAY_US
    cooldown_us: float = 1.0 * DAY_US
    extend_bits: float = 2.0
    extend_events: float = 16.0  # first message about growth; then at each doubling


CHANGED: Final = np.dtype(
    [
        ("event", "i4"),  # index in events; -1 from `close_due`
        ("slot", "i4"),
        ("kind", "u1"),
        ("rule", "u1"),
        ("severity", "u1"),  # index into schemas.incident.SEVERITIES
        ("adopted", "u1"),  # what goes on is learned, though nobody has reviewed it (`taken`)
        ("score", "f8"),  # bits of the rule
        ("return_days", "f8"),
        ("seen", "f8"),  # visits of this partition with that score or more, fading
        ("at_us", "i8"),
        ("opened_us", "i8"),
        ("events", "i8"),  # of the key while open, the opening one included
    ],
    align=True,
)
"""One change of an incident."""


def fusion_dtype(detectors: int) -> np.dtype[Any]:
    """The fusion's state of one key, with the largest bits of this visit per detector."""
    return np.dtype(
        [
            ("opened_us", "i8"),
            ("evidence_us", "i8"),
            ("visit_opened_us", "i8"),  # last opening by the visit rule, for the cool-down
            ("slow_opened_us", "i8"),
            ("slow_us", "i8"),  # of the last visit in `slow`
            ("series_us", "i8"),  # first opening of incidents that follow one another; 0: none yet
            ("slow", "f8"),  # R
            ("best", "f8"),  # largest V of this visit
            ("best_slow", "f8"),  # largest V7 of this visit
            ("days", "f8"),  # of the open incident: largest return period
            ("score", "f8"),
            ("reported", "f4"),  # score of its last message
            ("seen", "f4"),
            ("events", "u4"),
            ("reported_events", "u4"),
            ("run_h", "u2", (2,)),  # hour at which the running run began, per rule; 0: none yet
            ("families", "u2"),  # bit mask
            ("open", "u1"),
            ("rule", "u1"),
            ("severity", "u1"),
            ("under", "u1"),  # this visit began under an open incident
            ("series_severity", "u1"),  # the gravest of the series
            ("run_bin", "u1", (2,)),  # bin of the run's largest score, per rule
            ("taken", "u1"),  # what the series would withhold is learned: 0 not yet, UNREVIEWED (told), REVIEWED
            ("found", "i2", (detectors,)),  # largest bits of this visit per detector, in 1/64, of its holder's requests
            ("refused", "i2"),  # of refused ones, whatever the detector
        ],
        align=True,
    )


@compiled
def mixed(first: float, second: float) -> float:
    """log2(1/2 * 2^first + 1/2 * 2^second)."""
    high = max(first, second)
    return high - 1.0 + log2_of(1.0 + math.exp((min(first, second) - high) * LN2))


@compiled
def slow_step(fusion: Any, start_us: int, bits: float) -> float:
    """R after a visit that began at `start_us` with V7 = `bits`."""
    kept = fusion.slow * math.exp(-LN2 * max(0, start_us - fusion.slow_us) / SLOW_HALF_LIFE_US)
    return kept if bits <= 0.0 else min(SLOW_MOST, (1.0 + kept) * math.exp(min(bits, 30.0) * LN2))


@compiled
def slow_bits(after: float) -> float:
    """The slow rule's score: log2 R, 0 where nothing has added up."""
    return quantise(log2_of(max(1.0, after)))


@compiled
def visits_per_day(visit: Any, ts_us: int) -> float:
    """Of this key so far; starts at 2 a day and stays above one in 20 days."""
    age_days = max(0, ts_us - visit.first_seen_us) / DAY_US
    return max(0.05, (visit.ordinal + 2.0) / (age_days + 1.0))


@compiled
def visits_group(visit: Any) -> int:
    """0: keys of few visits, below FEW_VISITS a day; 1: the others. They are counted among themselves."""
    return 0 if visits_per_day(visit, int(visit.start_us)) < FEW_VISITS else 1


@compiled
def due_us(fusion: Any, settings: Any) -> int:
    """When the open incident closes if nothing more comes."""
    return min(fusion.evidence_us + int(settings.idle_us), fusion.opened_us + int(settings.life_us))


@compiled
def put_change(row: Any, event: int, slot: int, kind: int, fusion: Any, at_us: int) -> None:
    """Fill one CHANGED record from the incident as it stands."""
    row.event = event
    row.slot = slot
    row.kind = kind
    row.rule = fusion.rule
    row.severity = fusion.severity
    row.adopted = 1 if fusion.taken == UNREVIEWED and fusion.series_severity == 0 else 0  # a page is never learned
    row.score = fusion.score
    row.return_days = fusion.days
    row.seen = fusion.seen
    row.at_us = at_us
    row.opened_us = fusion.opened_us
    row.events = fusion.events


@compiled
def close_if_due(fusion: Any, now_us: int, event: int, slot: int, settings: Any, changed: Any, n: int) -> int:
    """Close the incident if its time has passed at `now_us`; the same record whoever finds it. Returns the new n."""
    if fusion.open == 0:
        return n
    due = due_us(fusion, settings)
    if now_us < due:
        return n
    put_change(changed[n], event, slot, CLOSED, fusion, due)
    fusion.open = 0
    return n + 1


@compiled
def begin_visit(fusion: Any) -> None:
    """Forget the last visit's largest values."""
    fusion.best = NOTHING_BITS
    fusion.best_slow = NOTHING_BITS
    fusion.under = fusion.open
    for k in range(len(fusion.found)):
        fusion.found[k] = 0
    fusion.refused = 0


@compiled
def count_run(fusion: Any, visit: Any, known: Any, rule: int, bits: float) -> None:
    """Count the visit's score in the key's run of this rule; a run ends when its rule might open again."""
    hour = hour_of(visit)
    fresh = begins_run(int(fusion.run_h[rule]), hour)
    stratum = calibration.stratum_of(visits_per_day(visit, visit.last_us))
    bin_before = -1 if fresh else int(fusion.run_bin[rule])
    fusion.run_bin[rule] = calibration.count(known, rule, stratum, bits, bin_before)
    if fresh:
        fusion.run_h[rule] = hour


@compiled
def waits_adopted(fusion: Any, ts_us: int) -> bool:
    """Whether the slow rule waits out its cool-down on a key whose new way is adopted.

    What comes then is that way, and learned. Left to add up, it rang the moment the cool-down ended, at a call that
    brought nothing (keybench, development half: 3 of 42 incidents on untouched keys at a threshold of 250 days).
    """
    return bool(ts_us < fusion.slow_opened_us + SERIES_US and adopts(fusion, ts_us))


@compiled
def end_visit(fusion: Any, visit: Any, known: Any) -> None:
    """The visit ended: count it for the calibration and take it into the slow rule's sum."""
    after = slow_step(fusion, visit.start_us, fusion.best_slow)
    if fusion.best > NOTHING_BITS and fusion.under == 0 and teaches(visit):
        count_run(fusion, visit, known, 0, fusion.best)
        count_run(fusion, visit, known, 1, slow_bits(after))
    if fusion.best > NOTHING_BITS:
        told = visit.tainted == 1 or fusion.slow_opened_us >= visit.start_us or waits_adopted(fusion, visit.start_us)
        fusion.slow = 0.0 if told else after  # what an incident has told is used up
        fusion.slow_us = visit.start_us


@compiled
def severity_of(days: float, families: int, settings: Any) -> int:
    """0 medium, 1 high, 2 critical: paging, and three families of evidence at once."""
    count = 0
    for bit in range(16):
        count += (families >> bit) & 1
    if days < settings.page_days:
        return 0
    return 2 if count >= CRITICAL_FAMILIES else 1


@compiled
def adopts(fusion: Any, ts_us: int) -> bool:
    """Whether what goes on under the key's incidents is learned all the same.

    Nobody labels everything: after 7 days of incidents without one of page grade the new way is taken for the key's
    own; else a key that has moved would ring every day for ever (keybench: 161 incidents on 42 keys).
    """
    return bool(fusion.series_us != 0 and fusion.series_severity == 0 and ts_us - fusion.series_us >= SERIES_US)


@compiled
def begins_anew(fusion: Any, ts_us: int) -> bool:
    """Whether what is usual is taken anew, growth and all.

    From the adoption on until 14 days after the last incident opened, then growth is held again: else a key that has
    grown for good would ring again, and one that once was adopted would be held by nothing.
    """
    last_us = max(fusion.visit_opened_us, fusion.slow_opened_us)
    return bool(fusion.taken != 0 and adopts(fusion, ts_us) and ts_us - last_us < 2 * SERIES_US)


@compiled
def rule_that_opens(fusion: Any, ts_us: int, days_visit: float, days_slow: float, families: int, settings: Any) -> int:
    """The rule over its threshold and out of its cool-down, the rarer first; 0 is none.

    `families`: bits of what speaks now. A kind of evidence that the last incident had not is another fact, whether
    that one was told, muted or judged.
    """
    another = families & ~int(fusion.families) != 0
    since_us = ts_us - fusion.visit_opened_us
    ready_visit = days_visit >= settings.listed_days and (
        fusion.visit_opened_us == 0
        or since_us >= 2 * SERIES_US
        or (since_us >= SERIES_US and not adopts(fusion, ts_us))  # what is adopted now needs no telling
        or (since_us >= settings.cooldown_us and (another or days_visit >= AGAIN * fusion.days))
    )
    ready_slow = days_slow >= settings.listed_days and (
        fusion.slow_opened_us == 0 or ts_us - fusion.slow_opened_us >= SERIES_US  # its sum lives for weeks
    )
    if ready_visit and (days_visit >= days_slow or not ready_slow):
        return RULE_VISIT
    return RULE_SLOW if ready_slow else 0


@compiled
def open_incident(fusion: Any, ts_us: int, rule: int, days: float, score: float, families: int, settings: Any) -> None:
    """Start the incident in the key's record."""
    last_us = max(fusion.visit_opened_us, fusion.slow_opened_us)
    if last_us == 0 or ts_us - last_us >= 2 * SERIES_US:
        fusion.series_us = ts_us
        fusion.series_severity = 0
        fusion.taken = 0
    fusion.open = 1
    fusion.rule = rule
    fusion.opened_us = ts_us
    fusion.evidence_us = ts_us
    if rule == RULE_VISIT:
        fusion.visit_opened_us = ts_us
    elif rule == RULE_SLOW:
        fusion.slow_opened_us = ts_us
    fusion.days = days
    fusion.score = score
    fusion.reported = score
    fusion.families = families
    fusion.severity = severity_of(days, families, settings)
    fusion.series_severity = max(fusion.series_severity, fusion.severity)
    fusion.events = 1
    fusion.reported_events = 1


@compiled
def prove(fusion: Any, ts_us: int, families: int, settings: Any) -> int:
    """A proof came: an incident opens whatever the budget says, or the open one becomes critical."""
    if fusion.open == 0:
        open_incident(fusion, ts_us, RULE_PROOF, 0.0, 0.0, families, settings)
        fusion.seen = 0.0
        fusion.severity = 2
        fusion.series_severity = 2
        return OPENED
    together = fusion.families | families
    if fusion.severity < 2 or together != fusion.families:
        fusion.families = together
        fusion.severity = 2
        fusion.series_severity = 2
        return ESCALATED
    return EXTENDED if fusion.events >= max(settings.extend_events, 2.0 * fusion.reported_events) else 0


@compiled
def grow_incident(fusion: Any, days: float, score: float, families: int, settings: Any) -> int:
    """New evidence under an open incident; returns ESCALATED, EXTENDED or 0 (not worth a message)."""
    fusion.days = max(fusion.days, days)
    fusion.score = max(fusion.score, score)
    together = fusion.families | families
    severity = max(fusion.severity, severity_of(fusion.days, together, settings))
    if together != fusion.families or severity > fusion.severity:
        fusion.families = together
        fusion.severity = severity
        fusion.series_severity = max(fusion.series_severity, severity)
        return ESCALATED
    if fusion.score >= fusion.reported + settings.extend_bits:
        return EXTENDED
    if fusion.events >= max(settings.extend_events, 2.0 * fusion.reported_events):
        return EXTENDED
    return 0
