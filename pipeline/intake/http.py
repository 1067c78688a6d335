"""An HTTP endpoint as intake's source, for Kong's http-log, Amazon Data Firehose, OTLP and all that can POST JSON.

200 means: the broker has acknowledged every event of this body. 503 (broker away) and 413 (Firehose: 400) tell the
gateway to keep it; Kong's http-log then tries again, and a repeated body gives the same request ids. Firehose sends its
token in a header of its own and counts a delivery as failed unless the answer names its request: give it a buffer of at
most 2 MiB. An OTLP exporter posts to `/v1/logs` and wants its answer in the encoding of its request.
Source: Firehose's HTTP endpoint delivery request and response specifications, version 1.0; OTLP 1.x, OTLP/HTTP
response. No Firehose and no collector was run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import re
import time
from typing import Final

import msgspec
from aiohttp import web

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.formats.envelope import GZIP_MAGIC
from pipeline.intake.run import Pump, batches_apart, options_of, stream
from pipeline.metrics import METRICS

MAX_BODY_BYTES: Final = 4 << 20
ACK_S: Final = 10.0
"""Kong's http-log waits 10 s by default: an answer after that is not heard."""
MARK_S: Final = 5.0
"""How often it says that it lives."""
FIREHOSE_ID: Final = "X-Amz-Firehose-Request-Id"
"""The same at each attempt to deliver the same records, but "in a best-effort manner": so the records name a body."""
_OF_ATTEMPT: Final = re.compile(rb'"(?:requestId"\s*:\s*"[^"]*"|timestamp"\s*:\s*"?\d*"?)')
FIREHOSE_KEY: Final = "X-Amz-Firehose-Access-Key"
OTLP_PATH: Final = "/v1/logs"
PROTOBUF: Final = "application/x-protobuf"
TOO_LARGE_FOR_FIREHOSE: Final = 400
"""At 413 it gives the records up; at any other error it tries until its retry duration ends and backs them up in S3."""
MAX_AT_ONCE: Final = 64
"""Bodies in work; more are told 503, so that memory stays within 64 * 4 MB."""
SMALL_BYTES: Final = 256 << 10
SHORT_BYTES: Final = 4 << 10
"""A body up to this is unpacked at once (0.2 s if it has gzip inside, else 2 ms); others apart: the loop serves all."""
MAX_LARGE: Final = 2
"""Bodies in gzip, or above SMALL_BYTES, that are unpacked at once; others wait: each may take 300 MB, and a core."""


async def from_http(config: Config, pump: Pump, stop: asyncio.Event, bound: asyncio.Future[int] | None = None) -> None:
    """Listen on intake.http_host and http_port until `stop`; `bound` is told the port (for port 0)."""
    app = make_app(config, pump)
    if config.leaks.enabled:
        from pipeline.intake.leaks import open_leaks  # cryptography is loaded where it is needed

        await open_leaks(config, pump.publisher, app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ACK_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.intake.http_host, config.intake.http_port)
        await _listen(site, config)
        if bound is not None:
            bound.set_result(runner.addresses[0][1])
        pump.health.recovered(True)
        while not stop.is_set():
            pump.health.polled()  # it has no loop of its own that could stand still
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), MARK_S)
    finally:
        await runner.cleanup()


async def _listen(site: web.TCPSite, config: Config) -> None:
    try:
        await site.start()
    except OSError as error:
        where = f"{config.intake.http_host}:{config.intake.http_port}"
        raise ConfigError(f"can not listen on {where} (intake.http_host, http_port): {error.strerror}") from error


def make_app(config: Config, pump: Pump) -> web.Application:
    """The application. Raises ConfigError for an address others can reach without a token."""
    if not config.intake.http_token and not is_loopback(config.intake.http_host):
        raise ConfigError("set intake.http_token, or listen on 127.0.0.1: whoever can write events can frame a key")
    endpoint = _Endpoint(config, pump)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    for path in ("/", OTLP_PATH):
        app.router.add_post(path, endpoint.post)
    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Endpoint:
    """POST / : one body is one message of the configured format."""

    def __init__(self, config: Config, pump: Pump) -> None:
        self._config = config
        self._pump = pump
        self._options = options_of(config)
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._large = asyncio.Semaphore(MAX_LARGE)

    async def post(self, request: web.Request) -> web.Response:
        """200 acknowledged, 400 no such encoding, 401 wrong token, 413 too large, 503 try again."""
        firehose = request.headers.get(FIREHOSE_ID)
        if not firehose:
            answer = await self._post(request)
            return _to_exporter(answer, request.content_type) if request.path == OTLP_PATH else answer
        try:
            answer = await self._post(request)
        except web.HTTPRequestEntityTooLarge:
            answer = web.Response(status=TOO_LARGE_FOR_FIREHOSE, text=f"the body is larger than {MAX_BODY_BYTES} bytes")
        return _to_firehose(answer, firehose)

    async def _post(self, request: web.Request) -> web.Response:
        if not self._allowed(request):
            return web.Response(status=401, text="the token is missing or wrong\n")
        if self._room.locked():
            return _try_again("too many bodies at once")
        async with self._room:
            try:
                body = await request.read()  # aiohttp answers 413 by itself
            except web.RequestPayloadError:  # and 500, with a trace in the log, to what its Content-Encoding is not
                return web.Response(status=400, text="the body is not what its Content-Encoding says\n")
            large = body.startswith(GZIP_MAGIC) or len(body) > SMALL_BYTES
            async with self._large if large else contextlib.nullcontext():
                return await self._take(body, _of_records(body) if FIREHOSE_ID in request.headers else body)

    def _allowed(self, request: web.Request) -> bool:
        """`Authorization: Bearer TOKEN`, `X-Keywatch-Token: TOKEN` (http-log can set either) or Firehose's header."""
        wanted = self._config.intake.http_token.reveal()
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.headers.get("X-Keywatch-Token", request.headers.get(FIREHOSE_KEY, bearer))
        return not wanted or hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())

    async def _take(self, body: bytes, named: bytes) -> web.Response:
        # What names the body, by default itself, is its position: sent again, it gives the same request ids, where the
        # gateway gives none.
        position = f"http/{hashlib.blake2b(named, digest_size=12).hexdigest()}"
        METRICS.events_consumed.labels("http").inc()
        try:
            async with asyncio.timeout(ACK_S):
                messages = stream(body, self._config.intake.format, self._options, position)
                if len(body) <= SHORT_BYTES and not body.startswith(GZIP_MAGIC):
                    await self._pump.take(messages)
                else:
                    async for batch in batches_apart(messages):
                        await self._pump.take(batch)
        except TimeoutError:
            return _try_again(f"it was not unpacked and acknowledged within {ACK_S:.0f} s")
        except (Retry, Fatal):
            return _try_again("the broker did not acknowledge")
        return web.Response(text="ok\n")


def _of_records(body: bytes) -> bytes:
    """A delivery of Firehose's without what may differ at the next attempt."""
    return _OF_ATTEMPT.sub(b"", body, count=2)


def _to_firehose(answer: web.Response, request_id: str) -> web.Response:
    """The same answer as Firehose wants it."""
    said: dict[str, object] = {"requestId": request_id, "timestamp": int(time.time() * 1000)}
    if answer.status != 200:
        said["errorMessage"] = (answer.text or "").strip()
    return web.json_response(said, status=answer.status)


def _to_exporter(answer: web.Response, encoding: str) -> web.Response:
    """The same answer as an OTLP exporter wants it: a response without fields, or a Status with a message."""
    text = "" if answer.status == 200 else (answer.text or "").strip()
    if encoding == PROTOBUF:
        said = text.encode()[:100]  # its length is one byte
        body = b"\x12" + bytes([len(said)]) + said if said else b""
    else:
        body, encoding = msgspec.json.encode({"message": text} if text else {}), "application/json"
    headers = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else None
    return web.Response(status=answer.status, body=body, content_type=encoding, headers=headers)


def _try_again(why: str) -> web.Response:
    return web.Response(status=503, text=f"{why}; send it again\n", headers={"Retry-After": "1"})
