"""What open sources are called, once for all rows: a network as a number, client and route as numbers of texts.

A source's row had 248 bytes of text in 376. Rows of key files still have the texts (`IN_WORDS`), so that a file says
everything by itself; rows of a state from before are taken over by `SourceTexts.take_over`.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from pipeline.aggregate import SOURCE
from pipeline.batch import Batch
from pipeline.column import Coded
from pipeline.geo.provider import Place, pack, prefix_of
from pipeline.state.pages import Blobs, migrate

Array = np.ndarray[Any, Any]

CLIENT_BYTES: Final = 40
ROUTE_BYTES: Final = 160
"""A longer text is cut, perhaps within a character."""
IN_WORDS: Final = np.dtype(
    [
        *((name, SOURCE[name]) for name in SOURCE.names or () if name not in ("network", "client_text", "route_text")),
        ("prefix", "S48"),
        ("client", f"S{CLIENT_BYTES}"),
        ("route", f"S{ROUTE_BYTES}"),
    ],
    align=True,
)
"""SOURCE with texts in place of numbers."""
_IPV4: Final = 1 << 48
_IPV6: Final = 2 << 48


def network_of(address: bytes) -> int:
    """The /24 or /48 of a packed address in 64 bits; 0 for none."""
    if len(address) == 4:
        return _IPV4 | int.from_bytes(address[:3])
    return _IPV6 | int.from_bytes(address[:6]) if address else 0


def network_text(network: int) -> str:
    """As `Place.prefix` says it."""
    if network >= _IPV6:
        return prefix_of((network - _IPV6).to_bytes(6) + bytes(10))
    return prefix_of((network - _IPV4).to_bytes(3) + b"\0") if network else ""


def networks(places: Coded[Place]) -> Array:
    """The network of each."""
    few = places.distinct()
    return np.array([network_of(place.address) for place in few.values], np.uint64)[few.codes]


def network_texts(networks: Array) -> Coded[str]:
    """The other way."""
    few, codes = np.unique(networks, return_inverse=True)
    return Coded(codes.reshape(-1), [network_text(each) for each in few.tolist()])


class SourceTexts(Blobs):
    """Each text that an open source's row names has one number from 1 on; 0 is "".

    Which number a text has changes no result. One that no row names any more is free at the next sweep.
    """

    def __init__(self) -> None:
        super().__init__("source_texts", block_rows=64)
        self._numbers: dict[bytes, int] = {b"": 0}
        self._free: list[int] = []  # a heap, as of slots

    def put(self, row: int, value: bytes | None) -> None:
        """Set or (None) remove one."""
        if (before := self.rows.get(row)) is not None:
            del self._numbers[before]
        super().put(row, value)
        if value is not None:
            self._numbers[value] = row

    def clear(self) -> None:
        """Remove all of them."""
        super().clear()
        self._numbers, self._free = {b"": 0}, []

    def rebuild(self) -> None:
        """All are put: which numbers below the last are free."""
        self._free = [number for number in range(1, max(self.rows, default=0)) if number not in self.rows]

    def number(self, text: bytes) -> int:
        """Of a text, given now if it has none."""
        text = text.rstrip(b"\0")
        found = self._numbers.get(text)
        if found is None:
            found = heappop(self._free) if self._free else len(self.rows) + 1
            self.put(found, text)
        return found

    def numbers(self, texts: Coded[str], most_bytes: int) -> Array:
        """Of each."""
        few = texts.distinct()
        return np.array([self.number(text.encode()[:most_bytes]) for text in few.values], np.uint32)[few.codes]

    def fill_in(self, sources: Array, at: Array, made: Array, batch: Batch) -> None:
        """The rows that events `made` have made; column by column, since a record of numpy's costs 2 us a field.

        Only what `add_sources` has told rows apart by.
        """
        new = at[made]
        placed = sources["prefix_hash"][new] != 0
        sources["network"][new[placed]] = networks(batch.places.take(made[placed]))
        named = (sources["client_hash"][new] != 0) | (sources["route_hash"][new] != 0)
        new, made = new[named], made[named]
        sources["client_text"][new] = self.numbers(batch.clients.take(made), CLIENT_BYTES)
        sources["route_text"][new] = self.numbers(batch.routes.take(made), ROUTE_BYTES)

    def texts(self, numbers: Array) -> Coded[str]:
        """The other way."""
        few, codes = np.unique(numbers, return_inverse=True)
        return Coded(codes.reshape(-1), [self.rows.get(each, b"").decode("utf-8", "ignore") for each in few.tolist()])

    def sweep(self, sources: Array) -> None:
        """Forget what no row of `sources` names."""
        named = np.zeros(max(self.rows, default=0) + 1, np.bool_)
        for field in ("client_text", "route_text"):
            named[sources[field]] = True
        for number in [each for each in self.rows if not named[each]]:
            self.put(number, None)
            heappush(self._free, number)

    def take_over(self, old: Array, new: Array) -> None:
        """Rows of another layout into empty ones of SOURCE."""
        migrate(old, new)
        if "prefix" in (old.dtype.names or ()):
            new["network"] = [network_of(pack(raw.decode().partition("/")[0])) for raw in old["prefix"].tolist()]
            new["client_text"] = [self.number(raw) for raw in old["client"].tolist()]
            new["route_text"] = [self.number(raw) for raw in old["route"].tolist()]

    def in_words(self, rows: Array) -> Array:
        """Rows of SOURCE as rows of IN_WORDS."""
        told = np.zeros(len(rows), IN_WORDS)
        migrate(rows, told)
        told["prefix"] = [network_text(each).encode() for each in rows["network"].tolist()]
        for name in ("client", "route"):
            told[name] = [self.rows.get(each, b"") for each in rows[f"{name}_text"].tolist()]
        return told
