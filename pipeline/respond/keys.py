"""What the catalogue says of a key at the moment of a decision; what can't be read is protected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.errors import KafkaError

from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.keys.catalogue import Catalogue
from pipeline.respond.ladder import Others
from pipeline.tasks import cancel_and_wait
from schemas.key import Key

log = logging.getLogger(__name__)

REFRESH_S: Final = 5.0
MAX_AGE_S: Final = 15.0  # an older copy is read again before a decision; if that fails nothing is known
UNKNOWN_MAX_AGE_S: Final = 1.0
READ_TIMEOUT_S: Final = 20.0
UNREADABLE: Final = (Retry, Fatal, ConfigError, KafkaError, OSError)  # TimeoutError is an OSError


class Reader(Protocol):
    """`pipeline.keys.catalogue.CatalogueReader`: one consumer that stays at the end of the keys topic."""

    async def open(self) -> Catalogue:
        """Connect and read everything."""

    async def refresh(self) -> Catalogue:
        """Read what is new; the same object where nothing is."""

    async def close(self) -> None:
        """Disconnect."""


class Keys(Protocol):
    """What the catalogue says now."""

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        """(the key or None, number of active keys or 0, why the catalogue can't be read or "")."""

    async def others(self, key: Key) -> Others:
        """(other active keys of its owner, other active keys at all); None is not known."""


@dataclass
class FreshKeys:
    """Keeps a copy no older than `MAX_AGE_S`; a reader that failed is thrown away and opened anew."""

    make_reader: Callable[[], Reader]
    now_s: Callable[[], float]  # monotonic
    _reader: Reader | None = None
    _held: Catalogue | None = None
    _active: int = 0
    _read_at_s: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read it once, whether or not that works, and begin to refresh."""
        await self._refreshed(0.0)
        self._task = asyncio.create_task(self._keep_fresh(), name="catalogue")

    async def close(self) -> None:
        """Stop refreshing and disconnect."""
        await cancel_and_wait(self._task)
        await self._drop_reader()

    def held(self) -> Catalogue | None:
        """The copy, however old; None while it was never read."""
        return self._held

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        """(the key or None, number of active keys or 0, why the catalogue can't be read or "")."""
        error = await self._refreshed(MAX_AGE_S)
        if not error and self._held is not None and self._held.get(key_id) is None:
            error = await self._refreshed(UNKNOWN_MAX_AGE_S)  # perhaps it was declared a moment ago
        if error or self._held is None:
            return None, 0, error or "it was never read"
        return self._held.get(key_id), self._active, ""

    async def others(self, key: Key) -> Others:
        """(other active keys of its owner, other active keys at all), as `look_up` read it; None is not known."""
        return others_of(self._held, key)

    async def _refreshed(self, max_age_s: float) -> str:
        async with self._lock:
            asked_at_s = self.now_s()
            if self._held is not None and asked_at_s - self._read_at_s <= max_age_s:
                return ""
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    catalogue = await self._read()
            except UNREADABLE as error:
                log.warning("the catalogue cannot be read, every key counts as protected: %s", error)
                await self._drop_reader()
                return str(error) or type(error).__name__
            self._take(catalogue)
            self._read_at_s = asked_at_s
            return ""

    async def _read(self) -> Catalogue:
        if self._reader is None:
            self._reader = self.make_reader()
            return await self._reader.open()
        return await self._reader.refresh()

    async def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(*UNREADABLE):
                await reader.close()

    def _take(self, catalogue: Catalogue) -> None:
        if catalogue is not self._held:
            self._held = catalogue
            self._active = sum(key.status == "active" for _, key in catalogue.items())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._refreshed(REFRESH_S / 2)


def others_of(catalogue: Catalogue | None, key: Key | None) -> Others:
    """Whom an act on more than this key may hit; of a key or a catalogue that isn't known nothing is known."""
    if catalogue is None or key is None:
        return None, None
    active = [each for _, each in catalogue.items() if each.status == "active" and each.key_id != key.key_id]
    of_owner = sum(each.owner == key.owner for each in active) if key.owner else None
    return of_owner, len(active)
