"""Whether nearly all keys come from one network: then it is a proxy's, and nothing is known of who calls.

Told as a metric (the alert KeywatchOneNetwork), since no event shows it: each has an address, of a network that is
known, and every key is at home there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from pipeline.geo.provider import Place

FEWEST_KEYS: Final = 10
"""Of fewer it says nothing that most come from one network."""


def keys_of_one(places: Iterable[Place]) -> tuple[int, int]:
    """Of keys by where each was used last: how many, and how many in the network that most are in; 0 of few."""
    keys = Counter(place.asn or place.prefix for place in places)
    return (keys.total(), max(keys.values())) if keys.total() >= FEWEST_KEYS else (0, 0)
