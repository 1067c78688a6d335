"""Whether ClickHouse goes on summing up days: its refreshable views, as `system.view_refreshes` tells.

A view whose refresh fails leaves days unsummed, and ClickHouse tells nobody. Pages over weeks stay right where a day
has no sum yet (they read its hours, and are slow), but what came late to a day that has one is missing from it. So
`keywatch doctor` looks, and the responder each five minutes, for its metrics (alert KeywatchSumsStale).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from pipeline.asking.answers import connected
from pipeline.asking.queries import ask
from pipeline.config.tree import ClickHouse
from pipeline.finding import Finding
from pipeline.metrics import METRICS
from pipeline.sinks.connect import AWAY
from pipeline.tasks import cancel_and_wait

log = logging.getLogger(__name__)

VIEWS: Final = ("to_days", "to_place_days")
"""Those that schemas/clickhouse/011_days.sql makes; each is refreshed every hour."""
LATE_S: Final = 3 * 3_600
LOOK_EVERY_S: Final = 300.0


class Refresh(msgspec.Struct, frozen=True):
    """One view as ClickHouse tells of it."""

    view: str
    status: str  # ClickHouse's word: Scheduled, Running, Disabled, ...
    exception: str  # of the last try, one line; "" where it went well
    since_s: float  # when it last began well, or if that is later when the server started or the view was made (Unix)
    now_s: float  # ClickHouse's clock


_REFRESHES: Final = """
    SELECT r.view AS view, r.status AS status, splitByString(', Stack trace', r.exception)[1] AS exception,
        toFloat64(toUnixTimestamp(greatest(
            ifNull(r.last_success_time, toDateTime(0)), now() - uptime(), t.metadata_modification_time
        ))) AS since_s, toFloat64(toUnixTimestamp(now())) AS now_s
    FROM system.view_refreshes AS r INNER JOIN system.tables AS t ON t.database = r.database AND t.name = r.view
    WHERE r.database = currentDatabase() AND r.view IN {views:Array(String)} ORDER BY view"""


def refreshes(config: ClickHouse) -> list[Refresh]:
    """Those of `VIEWS` that are there. Raises what `AWAY` names."""
    with connected(config) as client:
        return ask(client, Refresh, _REFRESHES, {"views": list(VIEWS)})


def findings(config: ClickHouse, seen: Sequence[Refresh]) -> list[Finding]:
    """What the doctor says: a failing line for each view that is missing, fails or is late; one that all is well."""
    known = {each.view: each for each in seen}
    troubles = [found for view in VIEWS if (found := _trouble(view, known.get(view), config.database)) is not None]
    if troubles:
        return troubles
    hours = max((each.now_s - each.since_s for each in seen), default=0.0) / 3_600
    return [Finding("ok", "clickhouse", f"days are summed up: {', '.join(VIEWS)}, within the last {hours:.1f} hours")]


def _trouble(view: str, seen: Refresh | None, database: str) -> Finding | None:
    again = f"SYSTEM REFRESH VIEW {database}.{view}"
    if seen is None:
        advice = "make it again as schemas/clickhouse/011_days.sql says (CREATE MATERIALIZED VIEW)"
        return Finding("fail", "clickhouse", f"the view {view} is missing: no day is summed up any more", advice)
    if seen.exception:
        text = f"the view {view} cannot sum up days: {' '.join(seen.exception.split())[:300]}"
        return Finding("fail", "clickhouse", text, f"mend that, then `{again}`: RUNBOOK, KeywatchSumsStale")
    if seen.now_s - seen.since_s > LATE_S:
        hours = (seen.now_s - seen.since_s) / 3_600
        text = f"the view {view} has summed up nothing for {hours:.0f} hours ({seen.status})"
        advice = f"`SYSTEM START VIEW {database}.{view}`, then `{again}`: RUNBOOK, KeywatchSumsStale"
        return Finding("fail", "clickhouse", text, advice)
    return None


def show(seen: Sequence[Refresh]) -> None:
    """Set the metrics; a view that isn't there fails."""
    known = {each.view: each for each in seen}
    for view in VIEWS:
        each = known.get(view)
        METRICS.view_refresh_failing.labels(view).set(each is None or bool(each.exception))
        if each is not None:
            METRICS.view_refresh_success.labels(view).set(each.since_s)


class RefreshWatch:
    """Looks every `LOOK_EVERY_S`; a ClickHouse that is away leaves the metrics as they were."""

    def __init__(self, ask_clickhouse: Callable[[], Sequence[Refresh]]) -> None:
        self._ask = ask_clickhouse
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first look is at once."""
        self._task = asyncio.create_task(self._run(), name="view refreshes")

    async def close(self) -> None:
        """Stop."""
        await cancel_and_wait(self._task)

    async def look(self) -> None:
        """Ask once, in a thread. That nobody answers is logged once, until somebody does."""
        try:
            show(await asyncio.to_thread(self._ask))
        except AWAY as error:
            if not self._away:
                log.warning("whether days are summed up is not known: %s", error)
            self._away = True
        else:
            self._away = False

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)
