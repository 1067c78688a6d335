"""How far each partition of incidents may be committed while many of them are handled side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """The commit point of a partition is its oldest unfinished incident, or what follows the last one begun."""

    _open: dict[int, set[int]] = field(default_factory=dict)
    _next: dict[int, int] = field(default_factory=dict)
    _committed: dict[int, int] = field(default_factory=dict)

    @property
    def unfinished(self) -> int:
        """Incidents begun and not finished."""
        return sum(len(offsets) for offsets in self._open.values())

    def next_of(self, partition: int, otherwise: int) -> int:
        """The offset after the last one begun."""
        return self._next.get(partition, otherwise)

    def begin(self, partition: int, offset: int) -> None:
        """This one is being handled; offsets of a partition come in ascending order."""
        self._open.setdefault(partition, set()).add(offset)
        self._next[partition] = offset + 1

    def finish(self, partition: int, offset: int) -> None:
        """All its effects are done or handed over durably."""
        self._open.get(partition, set()).discard(offset)

    def commit_points(self) -> dict[int, int]:
        """partition -> offset to commit, only where it has moved since `committed`."""
        points = {
            partition: min(self._open.get(partition) or {following}) for partition, following in self._next.items()
        }
        return {partition: point for partition, point in points.items() if point > self._committed.get(partition, -1)}

    def committed(self, points: dict[int, int]) -> None:
        """The broker has taken these."""
        self._committed |= {partition: point for partition, point in points.items() if partition in self._next}

    def forget(self, partitions: Iterable[int]) -> None:
        """Another responder owns these now."""
        for partition in partitions:
            for each in (self._open, self._next, self._committed):
                each.pop(partition, None)
