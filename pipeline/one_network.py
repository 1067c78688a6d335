"""Whether nearly all keys come from one network: then it is a proxy's, and nothing is known of who calls.

Told as a metric (the alert KeywatchOneNetwork), since no event shows it: each has an address, of a network that is
known, and every key is at home there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from pipeline.geo.provider import Place

FEWEST_KEYS: Final = 3
"""Of a partition: of one or two it says nothing that most come from one network."""
MOST_KEYS: Final = 1000
"""Are enough; then it begins anew."""


class Networks:
    """The networks that a partition's keys were used from last; `told`: how many keys, how many of the commonest."""

    def __init__(self) -> None:
        self.told = (0, 0)
        self._of: dict[int, int | str] = {}  # slot -> autonomous system, or /24 or /48

    def used(self, places: Iterable[tuple[int, Place]]) -> None:
        """Where keys were used last, by slot."""
        self._of.update((slot, place.asn or place.prefix) for slot, place in places)
        keys = Counter(self._of.values())
        if keys.total() >= FEWEST_KEYS:
            self.told = (keys.total(), max(keys.values()))
        if keys.total() >= MOST_KEYS:
            self._of = {}
