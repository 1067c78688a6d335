"""Types of settings, for `tree.py` and for the files that it takes its branches from."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]  # 0: any free one
Name = Annotated[str, Meta(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]  # as Kafka allows


class Secret(str):
    """A string that never shows itself; `reveal()` where it has to go out."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def reveal(self) -> str:
        """The value itself."""
        return str.__str__(self)
