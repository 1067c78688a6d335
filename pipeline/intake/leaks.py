"""`POST /leaks`: what secret scanners and people report as public, beside intake's endpoint for events.

GitHub's partner programme sends `[{token, type, url, source}]`, signed: `Github-Public-Key-Identifier` names the key,
`Github-Public-Key-Signature` is ECDSA P-256 over the raw body, SHA-256, DER in base64. The keys come from a file or a
URL (`/meta/public_keys/secret_scanning`), kept for an hour; an unknown identifier asks again, once a minute at most. A
person sends `{key_id | hash, url, reason}` with `Authorization: Bearer <leaks.token>`. Both are taken whole or not at
all, and a repeat changes nothing. Nothing of a body is ever logged. 200 with GitHub's feedback; 400 no report; 401
signature or token; 408 a body that drips; 503 the broker, ClickHouse or GitHub's keys are away, or too many at once:
send it again. Source: docs.github.com,
secret scanning partner program.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta

from pipeline.asking.answers import connected
from pipeline.asking.queries import ask
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.keys import leaks
from pipeline.keys.catalogue import Catalogue, CatalogueReader
from pipeline.keys.leak_care import LeakCare, open_ones, strangers
from pipeline.keys.leaks import Match, Matcher, Report
from pipeline.metrics import METRICS, leaks_started
from pipeline.ports import Publisher, RowSink
from pipeline.secrets import looks_secret
from pipeline.sinks.clickhouse import ClickHouseSink
from schemas.event import KeyId

PATH: Final = "/leaks"
MAX_BODY_BYTES: Final = 1 << 20
MOST_AT_ONCE: Final = 64
BODY_S: Final = 10.0
MOST_REPORTS: Final = 1000
KEYS_S: Final = 3_600.0
ASK_AGAIN_S: Final = 60.0
FETCH_S: Final = 10.0
MOST_KEYS_BYTES: Final = 65_536
IDENTIFIER: Final = "Github-Public-Key-Identifier"
SIGNATURE: Final = "Github-Public-Key-Signature"
_log = logging.getLogger(__name__)

Clock = Callable[[], float]


class _Token(msgspec.Struct, frozen=True):
    """One entry of GitHub's array. Its repr must not be reached: it holds the secret."""

    token: Annotated[str, Meta(min_length=1, max_length=4_096)]
    type: Annotated[str, Meta(max_length=256)] = ""
    url: Annotated[str, Meta(max_length=4_096)] = ""
    source: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        return "_Token(...)"


class _Manual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's report."""

    key_id: KeyId | None = None
    hash: Annotated[str, Meta(pattern=r"^(hmac_[0-9a-f]{32})?$")] = ""
    url: Annotated[str, Meta(max_length=4_096)] = ""
    reason: Annotated[str, Meta(max_length=500)] = ""


class _PublicKey(msgspec.Struct, frozen=True):
    key_identifier: str
    key: str


class _PublicKeys(msgspec.Struct, frozen=True):
    public_keys: list[_PublicKey]


def public_keys(raw: bytes) -> dict[str, ec.EllipticCurvePublicKey]:
    """Identifier -> key, P-256 only. Raises ValueError for what is no such document."""
    try:
        entries = msgspec.json.decode(raw, type=_PublicKeys).public_keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("no list of public keys") from error
    found = {}
    for entry in entries:
        try:
            key = load_pem_public_key(entry.key.encode())
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            found[entry.key_identifier] = key
    return found


def signed(key: ec.EllipticCurvePublicKey, body: bytes, signature: str) -> bool:
    """Whether the signature is this key's over this very body."""
    try:
        key.verify(base64.b64decode(signature, validate=True), body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


class FeedKeys:
    """The feed's public keys, from a file or a URL, kept for `KEYS_S`."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], clock: Clock = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._read_at = -KEYS_S
        self._lock = asyncio.Lock()

    async def get(self, identifier: str) -> ec.EllipticCurvePublicKey | None:
        """None for an identifier that the feed does not know. Raises Retry where its keys can't be had at all."""
        async with self._lock:
            age_s = self._clock() - self._read_at
            if age_s >= KEYS_S or (identifier not in self._keys and age_s >= ASK_AGAIN_S):
                await self._renew()
        return self._keys.get(identifier)

    async def _renew(self) -> None:
        try:
            self._keys = public_keys(await self._read())
            self._read_at = self._clock()
        except (OSError, ValueError, aiohttp.ClientError, TimeoutError) as error:
            if not self._keys:
                raise Retry(f"the leak feed's public keys can't be read: {type(error).__name__}") from None
            _log.warning("the leak feed's public keys could not be read anew: the old ones go on")
            self._read_at = self._clock() - KEYS_S + ASK_AGAIN_S  # again in a minute


def reader_of(config: Config) -> Callable[[], Awaitable[bytes]]:
    """From the configured file, else the URL. Raises ConfigError."""
    settings = config.leaks
    if settings.public_keys_file:
        path = Path(settings.public_keys_file)

        async def from_file() -> bytes:
            return await asyncio.to_thread(path.read_bytes)

        return from_file
    if not settings.public_keys_url.startswith("https://"):
        raise ConfigError("leaks.public_keys_url must begin with https:// (or set leaks.public_keys_file)")
    return lambda: _fetch(settings.public_keys_url)


async def _fetch(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return await answer.content.read(MOST_KEYS_BYTES)


class Reported(msgspec.Struct, frozen=True):
    """A body that was taken apart: nothing in it holds a secret."""

    reports: tuple[Report, ...]
    sha256: tuple[str, ...]  # of GitHub's tokens, for the feedback


def of_github(body: bytes, pepper: str) -> Reported:
    """Raises ValueError, with words that quote nothing."""
    try:
        tokens = msgspec.json.decode(body, type=list[_Token])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("no array of {token, type, url, source}") from None
    if len(tokens) > MOST_REPORTS:
        raise ValueError(f"more than {MOST_REPORTS} tokens in one body")
    return Reported(
        tuple(leaks.report_of(each.token, pepper, each.type, each.url, each.source) for each in tokens),
        tuple(hashlib.sha256(each.token.encode()).hexdigest() for each in tokens),
    )


def of_person(body: bytes) -> Reported:
    """Raises ValueError, with words that quote nothing."""
    try:
        said = msgspec.json.decode(body, type=_Manual)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError(
            "no {key_id | hash, url, reason}; a hash is hmac_ and 32 hex digits (keywatch leaks hash)"
        ) from None
    if bool(said.key_id) == bool(said.hash):
        raise ValueError("give either key_id or hash")
    if looks_secret(said.key_id or "") or looks_secret(said.reason):
        raise ValueError("that looks like a secret: give the public id, or its hash (keywatch leaks hash)")
    url = leaks.place(said.url)
    return Reported((Report(feed="manual", key_id=said.key_id or "", hash=said.hash, url=url, reason=said.reason),), ())


class LeakIntake:
    """The endpoint. `catalogue`: the newest snapshot; `used`: which of some key ids were ever used."""

    def __init__(
        self, config: Config, keys: FeedKeys | None, publisher: Publisher, rows: RowSink,
        catalogue: Callable[[], Awaitable[Catalogue]], used: Callable[[list[str]], Awaitable[list[str]]],
    ) -> None:  # fmt: skip
        self._config = config
        self._keys = keys
        self._publisher = publisher
        self._rows = rows
        self._catalogue = catalogue
        self._used = used
        self._matcher = Matcher(Catalogue.empty())
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._one = asyncio.Lock()  # what is read of the catalogue is written back
        leaks_started()

    async def post(self, request: web.Request) -> web.Response:
        """One body."""
        outcome, answer = await self._answer(request)
        METRICS.leak_deliveries.labels(outcome).inc()
        return answer

    async def _answer(self, request: web.Request) -> tuple[str, web.Response]:
        """Anybody can send a body, and slowly: only so many are held at once, and each must come in time."""
        if self._room.locked():
            return "failed", web.Response(status=503, text="too many at once\n", headers={"Retry-After": "30"})
        async with self._room:
            try:
                async with asyncio.timeout(BODY_S):
                    body = await request.read() if (request.content_length or 0) <= MAX_BODY_BYTES else None
            except TimeoutError:
                return "invalid", web.Response(status=408, text=f"the body did not come within {BODY_S:.0f} s\n")
            if body is None or len(body) > MAX_BODY_BYTES:
                return "invalid", web.Response(status=413, text=f"more than {MAX_BODY_BYTES} bytes\n")
            return await self._judge(request, body)

    async def _judge(self, request: web.Request, body: bytes) -> tuple[str, web.Response]:
        by_feed = IDENTIFIER in request.headers
        try:
            if not await (self._signed(request, body) if by_feed else self._allowed(request)):
                return "refused", web.Response(status=401, text="the signature or the token is missing or wrong\n")
            said = of_github(body, self._config.intake.pepper.reveal()) if by_feed else of_person(body)
            answer = await self._take(said)
        except ValueError as error:
            return "invalid", web.Response(status=400, text=f"{error}\n")
        except (Retry, Fatal, TimeoutError) as error:
            _log.warning("a leak report could not be kept: %s", error)
            return "failed", web.Response(status=503, text="try again\n", headers={"Retry-After": "30"})
        if by_feed:
            METRICS.leak_feed_timestamp.set_to_current_time()
        return "ok", web.json_response(answer)

    async def _signed(self, request: web.Request, body: bytes) -> bool:
        if self._keys is None:
            return False
        key = await self._keys.get(request.headers[IDENTIFIER])
        return key is not None and signed(key, body, request.headers.get(SIGNATURE, ""))

    async def _allowed(self, request: web.Request) -> bool:
        wanted = self._config.leaks.token.reveal()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return bool(wanted) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())

    async def _take(self, said: Reported) -> list[dict[str, str]]:
        async with self._one:
            matches = await self._match(said.reports)
            await leaks.tell(matches, time.time_ns() // 1000, self._config.topics, self._publisher, self._rows)
            complete = self._matcher.complete
        for match in matches:
            outcome = "known" if match.known else "matched" if match.key else "unmatched"
            METRICS.leak_reports.labels(outcome).inc()
        if not said.sha256:
            return [{"key_id": m.key.key_id if m.key else "", "leak_id": m.report.leak_id} for m in matches]
        return leaks.labels(matches, said.sha256, complete)

    async def _match(self, reports: tuple[Report, ...]) -> list[Match]:
        catalogue = await self._catalogue()
        if catalogue is not self._matcher.catalogue:
            self._matcher = Matcher(catalogue)
        unknown = [m.report.key_id or m.report.hash for m in self._matcher.match(reports) if m.key is None]
        return self._matcher.match(reports, await self._used(unknown) if unknown else ())


class _At(msgspec.Struct, frozen=True):
    at_s: float


def last_delivery_s(config: ClickHouse) -> float:
    """When the feed last brought a report, as ClickHouse knows it: the heartbeat outlives a restart."""
    with connected(config) as client:
        sql = "SELECT toFloat64(toUnixTimestamp(max(at))) AS at_s FROM leaks WHERE feed = 'github'"
        return max(0.0, ask(client, _At, sql, {})[0].at_s)


async def open_leaks(config: Config, publisher: Publisher, app: web.Application) -> None:
    """Add the endpoint to intake's application, with which its reader and sink end. Raises ConfigError, Fatal."""
    has_keys = bool(config.leaks.public_keys_file or config.leaks.public_keys_url)
    if not has_keys and not config.leaks.token:
        raise ConfigError("leaks.enabled needs leaks.public_keys_file, leaks.public_keys_url or leaks.token")
    if not config.intake.pepper:
        raise ConfigError("leaks.enabled needs intake.pepper: reported secrets are matched by their keyed hash")
    keys = FeedKeys(reader_of(config)) if has_keys else None
    METRICS.leak_feed_timestamp.set(await asyncio.to_thread(last_delivery_s, config.clickhouse))
    reader, rows = CatalogueReader(config), ClickHouseSink(config.clickhouse)
    await reader.open()

    async def used(ids: list[str]) -> list[str]:
        return await asyncio.to_thread(_used, config.clickhouse, ids)

    one = asyncio.Lock()

    async def refresh() -> Catalogue:
        async with one:  # there is one consumer
            return await reader.refresh()

    care = LeakCare(
        config.topics.incidents, publisher, rows, refresh, partial(open_ones, config.clickhouse),
        partial(strangers, config.clickhouse),
    )  # fmt: skip
    looking = asyncio.create_task(care.run(every_s)) if (every_s := config.leaks.look_every_s) else None

    async def close(_: Any) -> None:
        if looking:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await reader.close()
        await rows.close()

    endpoint = LeakIntake(config, keys, publisher, rows, refresh, used)
    app.router.add_post(PATH, endpoint.post)
    app.on_cleanup.append(close)


def _used(config: ClickHouse, ids: list[str]) -> list[str]:
    with connected(config) as client:
        return leaks.used_of(client, ids)
