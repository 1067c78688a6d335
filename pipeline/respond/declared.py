"""What is declared of each key, copied into ClickHouse's `keys`: dashboards choose and count keys by it.

The responder does it, as it reads the catalogue and writes to ClickHouse anyway; nothing that decides reads the table.
At the start everything is written, and keys that ClickHouse still lists but the catalogue doesn't are marked gone;
then what has changed. Each responder does so: a row is as of its `version`, so writing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pipeline.column import Columns
from pipeline.config.tree import ClickHouse
from pipeline.keys.catalogue import Catalogue
from pipeline.ports import RowSink
from pipeline.sinks.connect import AWAY, connect
from pipeline.tasks import cancel_and_wait
from pipeline.times import micros
from schemas.key import Key
from schemas.rows import KEYS

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0  # as often as the catalogue is read
ROWS_AT_ONCE: Final = 50_000

_SAME: Final = ("environment", "owner", "role", "status", "criticality", "exposure", "rotated_from", "rotated_to")
_TIMES: Final = ("ended_at", "created_at", "last_rotated_at", "leaked_at")


class DeclaredKeys:
    """Follows `held` (the catalogue as last read, or None) into the table. `listed` asks ClickHouse what it lists."""

    def __init__(
        self,
        held: Callable[[], Catalogue | None],
        sink: RowSink,
        listed: Callable[[], Iterable[str]],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._held, self._sink, self._listed, self._now_us = held, sink, listed, now_us
        self._written: Catalogue | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow(), name="declared keys")

    async def close(self) -> None:
        """Stop; what is missing is written at the next start."""
        await cancel_and_wait(self._task)
        await self._sink.close()

    async def look(self) -> int:
        """Write what differs from what was written last; returns how many keys. Raises what `AWAY` names."""
        now = self._held()
        if now is None or now is self._written:
            return 0
        before = self._written
        gone = set(await asyncio.to_thread(self._listed)) if before is None else set(before)
        changed = [(key_id, key) for key_id, key in now.items() if before is None or before.get(key_id) != key]
        told: list[tuple[str, Key | None]] = [*changed, *((key_id, None) for key_id in sorted(gone - set(now)))]
        version = self._now_us()
        for start in range(0, len(told), ROWS_AT_ONCE):
            await self._sink.write("keys", rows(told[start : start + ROWS_AT_ONCE], version))
        self._written = now
        return len(told)

    async def _follow(self) -> None:
        said = False
        while True:
            try:
                await self.look()
                said = False
            except AWAY as error:
                if not said:
                    log.warning("what is declared of keys waits for ClickHouse, dashboards show it late: %s", error)
                said = True
            await asyncio.sleep(LOOK_EVERY_S)


def rows(told: Sequence[tuple[str, Key | None]], version: int) -> Columns:
    """Columns of `keys`; None is a declaration that was taken back."""
    keys = [key or Key(key_id=key_id, status="revoked") for key_id, key in told]
    columns: dict[str, list[object]] = {name: [getattr(key, name) for key in keys] for name in _SAME}
    columns |= {name: [_moment(getattr(key, name)) for key in keys] for name in _TIMES}
    columns |= {name: [int(getattr(key, name)) for key in keys] for name in ("protected", "decoy")}
    columns["key_id"] = [key_id for key_id, _ in told]
    columns["gone"] = [int(key is None) for _, key in told]
    columns["version"] = [version] * len(told)
    return {name: columns[name] for name, _ in KEYS}


def _moment(text: str) -> int | None:
    try:
        return micros(text) or None
    except ValueError:
        return None  # a catalogue may say anything there


def listed(config: ClickHouse) -> list[str]:
    """Keys that ClickHouse lists as declared. Raises ClickHouseError."""
    with connect(config, config.database) as client:
        return [str(key_id) for (key_id,) in client.query("SELECT key_id FROM v_keys").result_rows]
