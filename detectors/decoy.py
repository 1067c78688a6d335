"""Decoy: a planted key is used.

Detects: any use of a key that the catalogue declares a decoy. Nobody has a reason to use one, so it is a proof that
what it was planted in was read, and stands outside of the budgets.
Misses: thieves who don't try it; a decoy that the catalogue does not declare as one.
False alarms: the team's own scanner, or whoever planted it and tried it out. A request that names the decoy's public id
without having its secret is a finding, but no proof.
Source: reference/detections.md, no. 1; reference/response.md, section 9.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from detectors.compile import compiled
from detectors.detector import DECLARED_DECOY, NOTHING, Context, Detector

PROOF_BITS: Final = 32.0


class Decoy(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.decoy]"""

    named_bits: float = 8.0  # of a request that only names it


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = 1 where the caller held the key."""
    reading.covered = 1
    if int(event.declared) & DECLARED_DECOY == 0:
        return
    held = int(event.authenticated) == 1
    reading.observed = 1.0
    reading.bits = PROOF_BITS if held else float(config.named_bits)
    reading.proof = 1 if held else 0
    reading.a = 1.0 if held else 0.0


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Nothing is ever normal about it."""


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Nothing to settle."""


def explain(reading: Any, context: Context) -> str:
    """In words: "a decoy key was used from 192.0.2.1: whoever has it has read where it was planted"."""
    if reading.a == 0.0:
        return f"a decoy key was named from {context.client_ip or 'an unknown address'}, without its secret"
    place = context.client_ip or "an unknown address"
    return f"a decoy key was used from {place}: whoever has it has read where it was planted"


DECOY: Final = Detector(
    name="decoy",
    family="declared",
    unit="uses of a decoy",
    state=NOTHING,
    shared=NOTHING,
    config=Decoy(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
