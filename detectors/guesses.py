"""Guesses at a key's secret, refused, and then a success from the same address. For errors.

Anybody can be refused in a key's name, so refusals are no evidence by themselves; but an address can't be forged over
TCP, and one that was refused five times and then holds the key has either guessed or got hold of the right secret
meanwhile. Owners do that too, when a secret is rotated: so at most six bits. Source: reference/detections.md, no. 12
(Sentinel's and Auth0's tries and success), here per key; the share of owners is our judgement.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled
from detectors.detector import ERROR_401, ERROR_NONE
from detectors.places import short
from detectors.surprise import ANY_LOUDNESS, log2_of, quantise

GUESSES_LEAST: Final = 5
GUESSED_MOST: Final = 6.0


@compiled
def note_guess(state: Any, event: Any) -> None:
    """Count refused tries of the address that tried last in this visit."""
    if event.authenticated == 1 or event.error != ERROR_401 or event.address == 0:
        return
    address = short(event.address)
    if state.guesser != address:
        state.guesser = address
        state.guesses = 0
    state.guesses = min(255, int(state.guesses) + 1)


@compiled
def guessed_bits(state: Any, event: Any) -> float:
    """Evidence of a success from the address that was refused before; 0 for any other event."""
    if event.authenticated == 0 or event.error != ERROR_NONE or int(state.guesses) < GUESSES_LEAST:
        return 0.0
    if short(event.address) != state.guesser:
        return 0.0
    return quantise(min(GUESSED_MOST, 1.0 + log2_of(int(state.guesses))))


@compiled
def surprise_of(evidence: float) -> float:
    """Bits whose evidence (`surprise.evidence_of`) this is."""
    return quantise(evidence + ANY_LOUDNESS) if evidence > 0.0 else 0.0


@compiled
def forget_guesses(state: Any) -> None:
    """The visit is over."""
    state.guesser = 0
    state.guesses = 0
