"""Leaked keys: a report becomes a keyed hash, the hash finds its key, and everybody who must know is told.

The raw secret lives as long as the request that brings it: it is hashed at once (`secrets.key_id_of_secret`,
HMAC-SHA256 with `intake.pepper`) and then forgotten; places are stripped of queries and of the secret itself. A key is
found by the `secret_hash` that the catalogue declares, or by its id, where the gateway logs raw keys and the id is
that hash.

Of a match, in this order, each step harmless when done twice: 1 an incident of rule `leak` on the incidents topic,
once for a key's secret: the proof that webhooks and responder act on; 2 `leaked_at` in the catalogue; 3 the row. What
fails makes the feed send it again. A second place of a known leak is a row and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import columns
from pipeline.asking.queries import ask
from pipeline.config.tree import Topics
from pipeline.keys.catalogue import Catalogue
from pipeline.ports import Publisher, RowSink
from pipeline.secrets import clean_path, key_id_of_secret, looks_secret
from pipeline.times import micros, rfc3339
from schemas.incident import Band, Finding, Incident, Sample, incident_id
from schemas.key import Key, undeclared

RULE: Final = "leak"
PROOF_BITS: Final = 32.0
LONGEST_URL: Final = 500
FIRST: Final = 1 << 61
MATCHED: Final = 1 << 62
Feed = Literal["github", "manual"]
_json = msgspec.json.Encoder()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One report, without the secret. `hash` keyed; `key_id` where a person named the key itself."""

    feed: Feed
    hash: str = ""
    key_id: str = ""
    kind: str = ""
    url: str = ""
    source: str = ""
    reason: str = ""
    shown: bool = False  # whoever reports it has the secret: no hearsay

    @property
    def leak_id(self) -> str:
        """The same for the same secret at the same place."""
        text = f"{self.hash or self.key_id}\0{self.url}"
        return hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-leak").hexdigest()


def report_of(token: str, pepper: str, kind: str, url: str, source: str) -> Report:
    """Of a feed: after this nothing holds the secret."""
    return Report(
        feed="github", hash=key_id_of_secret(token, pepper), kind=_name(kind, token), url=place(url, token),
        source=_name(source, token), shown=True,
    )  # fmt: skip


def place(url: str, token: str = "") -> str:
    """Where it was found: scheme, host and path, without query, user or anything that looks like a secret."""
    found = re.match(r"(?i)(https?://)([^/?#@\s]*@)?([^/?#\s]+)([^?#\s]*)[^#]*(#L\d+(?:-L\d+)?$)?", url)
    if found is None:
        return ""
    path = clean_path(found[4].replace(token, "{secret}") if token else found[4])
    host = found[3]
    if (token and token.lower() in host.lower()) or looks_secret(host):
        return ""
    return f"{found[1]}{host}{path}{found[5] or ''}"[:LONGEST_URL]


def _name(text: str, token: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text) is not None
    return "" if not plain or token in text or looks_secret(text) else text


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """A report and the key that it is about; None: no key of ours."""

    report: Report
    key: Key | None

    @property
    def known(self) -> bool:
        """The key's leak was told before, by somebody who knew as much: hearsay doesn't stand in a proof's way."""
        return self.key is not None and bool(self.key.leaked_at) and (self.key.leak_shown or not self.report.shown)


class Matcher:
    """Finds keys by hash or id. Built anew for each catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._by_hash = {key.secret_hash: key_id for key_id, key in catalogue.items() if key.secret_hash}

    def match(self, reports: Sequence[Report], used: Iterable[str] = ()) -> list[Match]:
        """`used`: ids of keys that were used, declared or not."""
        ids = set(used)
        return [Match(report=report, key=self._key(report, ids)) for report in reports]

    def _key(self, report: Report, used: set[str]) -> Key | None:
        key_id = report.key_id or self._by_hash.get(report.hash, report.hash)
        declared = self.catalogue.written(key_id)
        return declared if declared is not None else undeclared(key_id) if key_id in used else None

    @property
    def complete(self) -> bool:
        """Every key that is active can be found, so that what isn't found is none of ours."""
        keys = [key for _, key in self.catalogue.items() if key.status == "active"]
        return bool(keys) and all(key.secret_hash or key.key_id.startswith("hmac_") for key in keys)


def labels(matches: Sequence[Match], sha256: Sequence[str], complete: bool) -> list[dict[str, str]]:
    """GitHub's feedback: a hash instead of the secret; nothing is said where we can't know."""
    found = []
    for match, digest in zip(matches, sha256, strict=True):
        if match.key is None and not complete:
            continue
        label = "true_positive" if match.key is not None else "false_positive"
        found.append({"token_hash": digest, "token_type": match.report.kind, "label": label})
    return found


def incident_of(match: Match, at_us: int) -> Incident:
    """The proof. Of a secret there is one, whatever the places: its id depends on the key and the secret's version."""
    key, report = match.key, match.report
    assert key is not None
    words = f"{key.key_id}: its secret is public, reported by {report.feed}{f' at {report.url}' if report.url else ''}"
    at = rfc3339(at_us)
    finding = Finding(
        detector=RULE, family="declared", bits=PROOF_BITS, at=at, observed=1.0, expected=Band(low=0, median=0, high=0),
        unit="reports", text=words, authenticated=report.shown, sample=Sample(at=at), proof=True,
    )  # fmt: skip
    return Incident(
        incident_id=_ident(key, report), key_id=key.key_id, rule=RULE, revision=1,
        change="opened", state="open", severity="critical", rung="revoke", opened_at=at, last_at=at, bits=PROOF_BITS,
        text=words, findings=(finding,), environment=key.environment, owner=key.owner, role=key.role,
        key_version=key.version,
    )  # fmt: skip


def _ident(key: Key, report: Report) -> str:
    rule = RULE if report.shown else f"{RULE} heard of"  # ids of their own: hearsay may be followed by the proof
    return incident_id(key.key_id, rule, 0, f"{key.version}")


async def tell(matches: Sequence[Match], at_us: int, topics: Topics, publisher: Publisher, rows: RowSink) -> None:
    """Incidents, catalogue, rows: in this order. Raises Retry or Fatal; all of it may be done again.

    The catalogue's entry is as it was read a moment ago: nothing that may wait comes between.
    """
    fresh = {match.key.key_id: match for match in matches if match.key is not None and not match.known}
    incidents = [incident_of(match, at_us) for match in fresh.values()]
    for incident in incidents:
        await publisher.publish(topics.incidents, incident.key_id.encode(), _json.encode(incident))
    for match in fresh.values():
        assert match.key is not None
        since = match.key.leaked_at or rfc3339(at_us)
        leaked = msgspec.structs.replace(match.key, leaked_at=since, leak_shown=match.report.shown)
        await publisher.publish(topics.keys, leaked.key_id.encode(), _json.encode(leaked))
    if incidents:
        await rows.write("incidents", columns.incidents(incidents))
        found = [msgspec.structs.replace(incident, offset=0) for incident in incidents]  # of no log of requests
        await rows.write("findings", columns.findings_of(found, RULE, 0))
    if matches:
        await rows.write("leaks", rows_of(matches, at_us))


def rows_of(matches: Sequence[Match], at_us: int) -> dict[str, list[object]]:
    """`leaks`: of one leak the first row stays, but one that found its key stands above one that did not."""
    reports = [match.report for match in matches]
    return {
        "leak_id": [report.leak_id for report in reports],
        "key_id": [match.key.key_id if match.key else "" for match in matches],
        "at": [at_us] * len(matches),
        "feed": [report.feed for report in reports],
        "kind": [report.kind for report in reports],
        "url": [report.url for report in reports],
        "source": [report.source for report in reports],
        "hash": [report.hash for report in reports],
        "outcome": ["matched" if match.key else "unmatched" for match in matches],
        "incident_id": [_ident(match.key, match.report) if match.key else "" for match in matches],
        "reason": [report.reason for report in reports],
        "version": [(MATCHED if match.key else FIRST) - at_us for match in matches],
    }


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """One row, as people ask for it."""

    leak_id: str
    key_id: str
    at_us: int
    feed: str
    kind: str
    url: str
    source: str
    outcome: str
    incident_id: str
    reason: str


def leaks(client: Client, beginning: str = "", limit: int = 100) -> list[Leak]:
    """The newest first; those whose id begins like this. Raises Retry or Fatal."""
    sql = """
        SELECT leak_id, key_id, toUnixTimestamp64Micro(at) AS at_us, feed, kind, url, source, outcome,
            incident_id, reason
        FROM leaks FINAL WHERE startsWith(leak_id, {id:String}) ORDER BY at DESC, leak_id LIMIT {limit:UInt32}"""
    return ask(client, Leak, sql, {"id": beginning, "limit": limit})


class _Id(msgspec.Struct, frozen=True):
    key_id: str


def used_of(client: Client, ids: Sequence[str]) -> list[str]:
    """Which of these keys were ever used."""
    if not ids:
        return []
    sql = "SELECT DISTINCT key_id FROM keys_last_used WHERE key_id IN {ids:Array(String)}"
    return [row.key_id for row in ask(client, _Id, sql, {"ids": list(ids)})]


def leaked_us(key: Key) -> int:
    """When it was first reported; 0: it was not."""
    try:
        return micros(key.leaked_at)
    except ValueError:
        return 0
