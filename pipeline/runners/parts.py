"""What a runner is made of besides Kafka, so that tests and the demo can put other parts in."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pipeline.config import Config
from pipeline.core import Core, Sides, Slice
from pipeline.ports import RowSink
from schemas.event import Event

if TYPE_CHECKING:
    from pipeline.catalogue import CatalogueReader
    from pipeline.geo.provider import Geo

OpenCore = Callable[[int, Config, Sides, str, int], Core]
"""(partition, config, sides, topic epoch, number of partitions) -> an empty core."""


async def _nothing() -> None:
    """Nothing to close."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Constructors; `warm_up` runs in a thread before the group is joined, `read_sides` again and again."""

    open_core: OpenCore
    open_rows: Callable[[Config], RowSink]
    read_sides: Callable[[Config], Awaitable[Sides]]
    warm_up: Callable[[], None]
    close: Callable[[], Awaitable[None]] = _nothing


def config_version(config: Config) -> str:
    """12 hex digits of the settings that may change a result."""
    judged = (config.detectors, config.budget, config.worker.lateness_s, config.geo)
    return hashlib.blake2b(msgspec.json.encode(judged, order="deterministic"), digest_size=6).hexdigest()


def production_parts() -> Parts:
    """The real ones. Imported late: numba and ClickHouse's client take a second."""
    from pipeline import flow
    from pipeline.sinks.clickhouse import ClickHouseSink

    sides = SideReader()
    return Parts(flow.open_core, lambda config: ClickHouseSink(config.clickhouse), sides.read, warm_up, sides.close)


def warm_up() -> None:
    """Judge one event in a core that is thrown away: everything that is compiled lazily is then compiled or loaded.

    Compiling takes a minute on a busy machine; inside a slice it would hold the group's partitions for as long.
    """
    from pipeline import flow
    from pipeline.catalogue import Catalogue
    from pipeline.config import Geo as GeoConfig
    from pipeline.geo.provider import open_geo

    flow.warm_up()
    core = flow.open_core(0, Config(), Sides(Catalogue.empty(), open_geo(GeoConfig()), ""), "", 0)
    event = Event(key_id="warm-up", ts_us=1_700_000_000_000_000, client_ip="8.8.8.8", status=200, outcome="success")
    core.process(Slice("", 0, [0], [b"warm-up"], [msgspec.json.encode(event)], [event.ts_us // 1000]))


class SideReader:
    """The side inputs of a running worker: the geo database once, the catalogue by a consumer that stays."""

    def __init__(self) -> None:
        self._reader: CatalogueReader | None = None
        self._geo: Geo | None = None

    async def read(self, config: Config) -> Sides:
        """Everything to its end as of now. Raises Fatal."""
        from pipeline.catalogue import CatalogueReader
        from pipeline.geo.provider import open_geo

        if self._reader is None or self._geo is None:
            self._geo = open_geo(config.geo)
            self._reader = CatalogueReader(config)
            catalogue = await self._reader.open()
        else:
            catalogue = await self._reader.refresh()
        return Sides(catalogue, self._geo, config_version(config))

    async def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            await self._reader.close()
