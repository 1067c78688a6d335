"""What is declared of keys and what people have muted: the keys and control topics, followed while the console runs.

Pages read the newest snapshots, which never change. Where the broker is away the last ones stay; None: none was read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

from pipeline.config.tree import Config
from pipeline.console.following import follow
from pipeline.control.controls import Controls
from pipeline.control.topic import ControlsReader
from pipeline.keys.catalogue import Catalogue, CatalogueReader
from pipeline.times import micros
from schemas.control import Mute

EVERY_S: Final = 5.0
"""As often as an open page renews itself."""
READ_S: Final = 60.0


class Readers(Protocol):
    """The two topics."""

    async def refresh(self) -> tuple[Catalogue, Controls]:
        """Read on to their ends. Raises Fatal, ConfigError."""


Connect = Callable[[], AbstractAsyncContextManager[Readers]]


class Side:
    """Runs on the event loop; the snapshots may be read in any thread."""

    def __init__(self, connect: Connect) -> None:
        self.catalogue: Catalogue | None = None
        self.controls: Controls | None = None
        self._connect, self._following = connect, False
        self._again = asyncio.Event()
        self._read = asyncio.Condition()

    async def follow(self) -> None:
        """Until cancelled: read on, and find the topics again when they were lost."""
        await follow(self._connect, self._hold, "declared keys and mutes can't be read")

    async def _hold(self, readers: Readers) -> AsyncIterator[None]:
        try:
            while True:
                await self._refresh(readers)
                self._following = True
                yield
                await self._rest()
        finally:
            self._following = False

    async def _refresh(self, readers: Readers) -> None:
        async with asyncio.timeout(READ_S):
            self.catalogue, self.controls = await readers.refresh()
        async with self._read:
            self._read.notify_all()

    async def _rest(self) -> None:
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await self._again.wait()

    async def reach(self, seq: int, within_s: float) -> None:
        """Read on until this place of the control topic: what was just said there is then shown. Raises nothing, and
        waits no longer than that; not at all where nothing can be read.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._read:
                while self._following and self.controls and self.controls.end <= seq:
                    self._again.set()
                    await self._read.wait()

    def mutes(self, now_us: int) -> list[Mute]:
        """Those that hold now, the one that ends first before the others."""
        said = self.controls.holding.values() if self.controls else ()
        holding = [each.control for each in said if isinstance(each.control, Mute)]
        return sorted((each for each in holding if micros(each.until) > now_us), key=lambda each: micros(each.until))


def mutes_of(mutes: list[Mute], key_id: str, owner: str) -> list[Mute]:
    """Those that withhold something of this key; a mute of a detector alone does so of every key."""
    return [each for each in mutes if each.key_id in ("", key_id) and each.owner in ("", owner)]


class _OfBroker:
    def __init__(self, keys: CatalogueReader, said: ControlsReader) -> None:
        self._keys, self._said = keys, said

    async def refresh(self) -> tuple[Catalogue, Controls]:
        return await self._keys.refresh(), await self._said.refresh()


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Readers]:
    """The broker's topics. Raises Fatal."""
    async with AsyncExitStack() as stack:
        keys, said = CatalogueReader(config), ControlsReader(config)
        for reader in (keys, said):
            stack.push_async_callback(reader.close)
            await reader.open()
        yield _OfBroker(keys, said)
