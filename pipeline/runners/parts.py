"""What a runner is made of besides Kafka, so that tests and the demo can put other parts in."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pipeline.config.tree import Config
from pipeline.core import Core, Sides
from pipeline.ports import RowSink

if TYPE_CHECKING:
    from pipeline.control.topic import ControlsReader
    from pipeline.geo.provider import Geo
    from pipeline.keys.catalogue import CatalogueReader

JUDGING: Final = ((), ("topologies",), ("geo",), ("formats",))
"""Folders of this package with what makes findings of events."""

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
    section: str = "worker"  # of the configuration: where its host and port stand


def config_version(config: Config) -> str:
    """12 hex digits of what may change a result: the settings, and this version of the product, its code and all."""
    worker, life = config.worker, config.key_life
    judged = (
        config.detectors, config.budget, worker.lateness_s, worker.max_keys_per_partition, config.geo, product(),
        (life.rotation_days, life.overlap_days, life.test_networks),
    )  # fmt: skip
    return hashlib.blake2b(msgspec.json.encode(judged, order="deterministic"), digest_size=6).hexdigest()


@cache
def product() -> tuple[str, ...]:
    """The package's version, and a hash each of the sources that judge: a version's number may stay while they change.

    Of Python's and numba's version, too, by which compiled detectors come to other bits.
    """
    import detectors
    import pipeline
    from detectors.compile import source_hash

    folders = [Path(detectors.__path__[0]), *(Path(pipeline.__path__[0], *below) for below in JUDGING)]
    return version("keywatch"), *map(source_hash, folders)


def production_parts() -> Parts:
    """The real ones. Imported late: numba and ClickHouse's client take a second."""
    from pipeline import flow
    from pipeline.sinks.clickhouse import ClickHouseSink

    sides = SideReader()
    return Parts(flow.open_core, lambda config: ClickHouseSink(config.clickhouse), sides.read, _warm_up, sides.close)


def _warm_up() -> None:
    from pipeline.sinks.connect import without_pandas
    from pipeline.warm import warm_up

    without_pandas()
    warm_up()


class SideReader:
    """The side inputs of a running worker: the geo database once, catalogue and controls by consumers that stay."""

    def __init__(self) -> None:
        self._reader: CatalogueReader | None = None
        self._controls: ControlsReader | None = None
        self._geo: Geo | None = None

    async def read(self, config: Config) -> Sides:
        """Everything to its end as of now. Raises Fatal."""
        from pipeline.control.topic import ControlsReader
        from pipeline.geo.provider import open_geo
        from pipeline.keys.catalogue import CatalogueReader

        if self._reader is None or self._controls is None or self._geo is None:
            self._geo = open_geo(config.geo)
            self._reader, self._controls = CatalogueReader(config), ControlsReader(config)
            catalogue, controls = await self._reader.open(), await self._controls.open()
        else:
            catalogue, controls = await self._reader.refresh(), await self._controls.refresh()
        return Sides(catalogue, self._geo, config_version(config), controls)

    async def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            await self._reader.close()
        if self._controls is not None:
            await self._controls.close()
