"""Misuse: the key is used against what the catalogue declares of it.

Detects: use outside of its allowed networks or countries, a scope that it was not given, a read-only key that writes, a
test key that does live work and a live key in tests (by the environment that the event names, or by its networks), a
key that has ended (revoked, expired), that has outlived its rotation period, or that goes on after another replaced it.
A success with an ended key is a proof: it should be refused (where the catalogue says since when it has ended, from a
minute after that on).
Misses: whatever the catalogue does not say; scopes where the gateway does not log them.
False alarms: a catalogue that is out of date. So what a key's visits break again and again becomes usual for it, and
counts the less: misconfigured for days is one finding, not an incident a day. Old age alone is never evidence.
Source: reference/detections.md, no. 1 and section 3; shares of strangers and abusers who break a rule: our judgement.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import (
    DECLARED_COUNTRY,
    DECLARED_DECOY,
    DECLARED_ENDED,
    DECLARED_LIVE_TEST,
    DECLARED_NETWORK,
    DECLARED_OVERAGE,
    DECLARED_READ_ONLY,
    DECLARED_SCOPE,
    DECLARED_SUPERSEDED,
    DECLARED_SUSPENDED,
    DECLARED_TEST_LIVE,
    ERROR_NONE,
    NOTHING,
    Context,
    Detector,
)
from detectors.surprise import log2_of, quantise

RULES: Final = np.array(
    [
        DECLARED_ENDED, DECLARED_SUSPENDED, DECLARED_NETWORK, DECLARED_COUNTRY, DECLARED_READ_ONLY, DECLARED_SCOPE,
        DECLARED_TEST_LIVE, DECLARED_LIVE_TEST, DECLARED_OVERAGE, DECLARED_SUPERSEDED,
    ]
)  # fmt: skip
STRANGERS: Final = np.array([0.5, 0.5, 0.8, 0.6, 0.3, 0.3, 0.2, 0.05, 0.0, 0.3])
"""Share of a stranger's or abuser's visits that break the rule. Superseded: whoever finds an old secret has no newer
one; but a forgotten job has neither, so it is no proof [judged]."""
LAST: Final = len(RULES) - 1
PRIOR_BROKEN: Final = 0.1
PRIOR_VISITS: Final = 10.0  # one visit in 100 breaks a rule that the owner just declared
FADING: Final = 0.98  # per visit
WORDS: Final = (
    "a key that has ended (revoked or expired) is used",
    "a suspended key is used",
    "used outside of its allowed networks",
    "used outside of its allowed countries",
    "a read-only key writes",
    "a scope that it was not given",
    "a test key does live work",
    "a live key is used in tests",
    "the key is older than its rotation period",
    "another key has replaced it, and the time in which both are valid is over",
)

STATE: Final = np.dtype(
    [
        ("broken", "u1", (LAST,)),  # visits that broke the rule, in 1/8, fading
        ("last_broken", "u1"),  # the same of the last rule, which came later: what is kept of the others stays
        ("visits", "f4"),
        ("seen", "u2"),  # rules that this visit broke
        ("any", "u2"),  # 1: the visit had events
    ],
    align=True,
)
UNIT: Final = 8.0


class Misuse(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.misuse]"""

    cap_bits: float = 10.0  # of the log likelihood ratio


@compiled
def broken_visits(state: Any, rule: int) -> int:
    """In 1/8."""
    return int(state.last_broken) if rule == LAST else int(state.broken[rule])


@compiled
def chance(state: Any, rule: int) -> float:
    """How often the key's visits break the rule."""
    broken = broken_visits(state, rule) / UNIT
    return (broken + PRIOR_BROKEN) / (float(state.visits) + PRIOR_VISITS)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = index of the rule in WORDS, b = how many are broken at once."""
    reading.covered = 1
    flags = int(event.declared) & ~DECLARED_DECOY
    if flags == 0:
        return
    least, which, ratio, count = 1.0, 0, 0.0, 0
    for rule in range(len(RULES)):
        if flags & RULES[rule] != 0:
            p = min(1.0, chance(state, rule))
            count += 1
            if p < least:
                least, which = p, rule
            if STRANGERS[rule] > 0.0:
                ratio = max(ratio, log2_of(STRANGERS[rule] / p))
    if count == 0:
        return
    success = int(event.authenticated) == 1 and int(event.error) == ERROR_NONE
    ended = flags & DECLARED_ENDED != 0
    if ended:
        which = 0
    reading.proof = 1 if ended and success else 0
    reading.bits = quantise(log2_of(1.0 / least))
    evidence = quantise(min(float(config.cap_bits), ratio))
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    reading.observed = float(count)
    reading.a = float(which)
    reading.b = float(count)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Keep which rules the visit broke."""
    if weight > 0.0:
        state.any = 1
        for rule in range(len(RULES)):
            if int(event.declared) & RULES[rule] != 0:
                state.seen = int(state.seen) | (1 << rule)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's broken rules into the counts."""
    if weight > 0.0 and int(state.any) == 1:
        state.visits = float(state.visits) * FADING + 1.0
        for rule in range(len(RULES)):
            broken = int(broken_visits(state, rule) * FADING)
            if (int(state.seen) >> rule) & 1 == 1:
                broken = min(255, broken + int(UNIT))
            if rule == LAST:
                state.last_broken = broken
            else:
                state.broken[rule] = broken
    state.seen = 0
    state.any = 0


def explain(reading: Any, context: Context) -> str:
    """In words: "used outside of its allowed networks (192.0.2.1)"."""
    rule = int(reading.a)
    about = {2: context.client_ip, 3: context.country, 4: f"{context.method} {context.route}"}.get(rule, "")
    more = int(reading.b) - 1
    others = f", and {more} more of its declarations broken" if more > 0 else ""
    return WORDS[rule] + (f" ({about})" if about.strip() else "") + others


MISUSE: Final = Detector(
    name="misuse",
    family="declared",
    unit="declarations broken",
    state=STATE,
    shared=NOTHING,
    config=Misuse(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
