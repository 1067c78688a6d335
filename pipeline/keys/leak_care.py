"""Open leaks are looked at again: told a second time once a stranger uses the key, closed once the secret is dead.

The intake that takes leaks does so every `leaks.look_every_s`. What is open stands in `incidents`; each look reads it
there and publishes the next revision, the message first and then its row, so that a look that was cut off is made
again with the same revision. A stranger is as `keywatch leaks show` has it: a network or client that the key was not
used from in the 30 days before, here from a day before the report on and with at least one success. Of a key without
any use before nobody can say who is strange. A secret is dead once the catalogue says that its key is revoked or
expired, or has another version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import columns
from pipeline.asking.answers import connected
from pipeline.asking.investigate import Source, sources_of
from pipeline.asking.queries import DAY_US, HELD, ask
from pipeline.config.tree import ClickHouse
from pipeline.errors import Fatal, Retry
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.leaks import PROOF_BITS, RULE
from pipeline.ports import Publisher, RowSink
from pipeline.times import micros, rfc3339
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key

STRANGER: Final = "network"  # the family of the finding that says so
DEAD: Final = ("revoked", "expired")
_log = logging.getLogger(__name__)


def why_dead(key: Key | None, incident: Incident) -> str:
    """Why the leaked secret opens nothing any more; "" where it may, or nobody knows."""
    if key is None:
        return ""
    if key.status in DEAD:
        return f"the key is {key.status}"
    another = 0 < incident.key_version != key.version > 0
    return f"the key has another secret, version {key.version}" if another else ""


def closed(incident: Incident, why: str, now_us: int) -> Incident:
    """The last revision."""
    at = rfc3339(now_us)
    return msgspec.structs.replace(
        incident, revision=incident.revision + 1, change="closed", state="closed", closed_at=at, last_at=at,
        text=f"{incident.text}; over: {why}",
    )  # fmt: skip


def is_told(incident: Incident) -> bool:
    """That a stranger uses it."""
    return any(finding.family == STRANGER for finding in incident.findings)


def used(incident: Incident, strangers: list[Source]) -> Incident:
    """The revision that says who uses the leaked key. Evidence as good as the report: hearsay stays hearsay."""
    newest = max(strangers, key=lambda source: source.last_us)
    at, requests = rfc3339(newest.last_us), sum(source.requests for source in strangers)
    words = (
        f"a stranger uses the leaked key: {requests:,} requests ({sum(s.succeeded for s in strangers):,} succeeded) "
        f"from {len(strangers)} new sources, the last from {newest.network} by {newest.client or 'no known client'}"
    )
    sample = Sample(at=at, country=newest.country, asn=newest.asn, network=newest.network, client=newest.client)
    finding = Finding(
        detector=RULE, family=STRANGER, bits=PROOF_BITS, at=at, observed=float(requests),
        expected=Band(low=0, median=0, high=0), unit="requests", text=words, sample=sample, proof=True,
        authenticated=any(each.authenticated for each in incident.findings),
    )  # fmt: skip
    return msgspec.structs.replace(
        incident, revision=incident.revision + 1, change="escalated", last_at=at, text=f"{incident.text}; {words}",
        findings=(*incident.findings, finding),
    )  # fmt: skip


class LeakCare:
    """One look at all open leaks. `open_ones` and `strangers` ask ClickHouse; both raise Retry or Fatal."""

    def __init__(
        self, topic: str, publisher: Publisher, rows: RowSink, catalogue: Callable[[], Awaitable[Catalogue]],
        open_ones: Callable[[], Awaitable[list[Incident]]], strangers: Callable[[Incident], Awaitable[list[Source]]],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:  # fmt: skip
        self._topic, self._publisher, self._rows, self._now_us = topic, publisher, rows, now_us
        self._catalogue, self._open_ones, self._strangers = catalogue, open_ones, strangers

    async def run(self, every_s: float) -> None:
        """For ever; what can't be read or told now is so at the next look."""
        while True:
            try:
                await self.look()
            except (Retry, Fatal, OSError) as error:  # TimeoutError is an OSError
                _log.warning("open leaks could not be looked at: %s", error)
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Publish what is new of each."""
        catalogue = await self._catalogue()
        for incident in await self._open_ones():
            if revision := await self._next(incident, catalogue.get(incident.key_id)):
                _log.warning("%s", revision.text)
                await self._publisher.publish(self._topic, revision.key_id.encode(), msgspec.json.encode(revision))
                await self._rows.write("incidents", columns.incidents([revision]))

    async def _next(self, incident: Incident, key: Key | None) -> Incident | None:
        if why := why_dead(key, incident):
            return closed(incident, why, self._now_us())
        if is_told(incident):
            return None
        strangers = [source for source in await self._strangers(incident) if source.succeeded]
        return used(incident, strangers) if strangers else None


class _Body(msgspec.Struct, frozen=True):
    body: str


class _Count(msgspec.Struct, frozen=True):
    before: int


def open_leaks_of(client: Client) -> list[Incident]:
    """The newest revision of each that is open."""
    sql = """
        SELECT argMax(body, i.revision) AS body FROM incidents AS i WHERE rule = 'leak'
        GROUP BY incident_id HAVING argMax(state, i.revision) = 'open' ORDER BY incident_id"""
    return [msgspec.json.decode(row.body, type=Incident) for row in ask(client, _Body, sql, {})]


def strangers_of(client: Client, incident: Incident, now_us: int) -> list[Source]:
    """Who has used the key from a day before the report on and not before; nobody where there is no before."""
    from_us = micros(incident.opened_at) - DAY_US
    sql = f"""SELECT count() AS before FROM key_source_1h
        WHERE key_id = {{key:String}} AND window_start < {{from:DateTime}} AND {HELD}"""  # noqa: S608 (a constant)
    before = ask(client, _Count, sql, {"key": incident.key_id, "from": from_us // 1_000_000})[0].before
    found = sources_of(client, incident.key_id, from_us, now_us) if before else []
    return [source for source in found if source.strange]


async def open_ones(config: ClickHouse) -> list[Incident]:
    """In a thread of its own."""

    def read() -> list[Incident]:
        with connected(config) as client:
            return open_leaks_of(client)

    return await asyncio.to_thread(read)


async def strangers(config: ClickHouse, incident: Incident) -> list[Source]:
    """In a thread of its own."""

    def read() -> list[Source]:
        with connected(config) as client:
            return strangers_of(client, incident, time.time_ns() // 1000)

    return await asyncio.to_thread(read)
