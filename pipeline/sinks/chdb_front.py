"""ClickHouse's HTTP interface in front of chDB, on loopback: the demo's database and the tests' target.

`python -m pipeline.sinks.chdb_front --path DIR --port N` prints `{"url": ...}` as one line when it answers, ends on
SIGTERM after the running requests, and refuses a folder that is open elsewhere (exit code 2). clickhouse-connect (both
clients) and clickhouse-migrations work on it unchanged. Not there: users, quotas, settings profiles, row policies; with
KEYWATCH_FRONT_PASSWORD set every request must bring that password. Recipe and measurements: `reference/mechanisms.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hmac
import json
import os
import signal
import sys
import uuid
import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import lz4.frame
from aiohttp import BodyPartReader, web

from pipeline.errors import ConfigError
from pipeline.sinks.chdb_engine import Answer, Engine, External, QueryError, Statement, run, split_insert

MAX_BODY_BYTES: Final = 1 << 30
THREADS: Final = 6  # a few slow statements must not hold up the inserts
DEADLINE_S: Final = 300.0
SESSION_TIMEOUT_S: Final = 60.0  # ClickHouse's default
STATUS_OF: Final = {60: 404, 81: 404, 497: 403, 516: 403, 241: 500, 159: 500}  # error code -> HTTP status, else 400
FAULTS: Final = ("503", "500-after-apply", "timeout")

_PROTOCOL: Final = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "user",
        "wait_end_of_query",
    }
)
"""URL parameters that are no settings."""


@dataclass(slots=True)
class Session:
    """A connection kept under a session id; one statement at a time."""

    connection: Any
    lock: asyncio.Lock
    expires_at: float  # loop time
    timeout_s: float


@dataclass(slots=True)
class Front:
    """What the handlers share. `faults` is None unless asked for: then each name in it spoils the next insert."""

    engine: Engine
    password: str = ""
    faults: list[str] | None = None
    sessions: dict[str, Session] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "chdb"))


FRONT: Final = web.AppKey("front", Front)


def application(front: Front) -> web.Application:
    """The HTTP application. Run it with `auto_decompress=False`: bodies are decoded here, all encodings alike."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[FRONT] = front
    app.router.add_get("/ping", _ping)
    app.router.add_get("/replicas_status", _ping)
    app.router.add_post("/faults", _add_faults)
    app.router.add_route("*", "/", _handle)
    return app


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


async def _add_faults(request: web.Request) -> web.Response:
    """Tests only: a JSON list of names out of `FAULTS`, each for one coming insert; answers how many wait."""
    faults = request.app[FRONT].faults
    if faults is None:
        raise web.HTTPForbidden(text="started without --faults\n")
    names = await request.json()
    if not set(names) <= set(FAULTS):
        raise web.HTTPBadRequest(text=f"known faults: {', '.join(FAULTS)}\n")
    faults[:] = names
    return web.json_response({"pending": len(faults)})


async def _handle(request: web.Request) -> web.StreamResponse:
    front = request.app[FRONT]
    try:
        _authenticate(front, request)
        form, external = await _body(request)
        query = {**request.query, **form.fields}
        statement = _statement(request, query, form.body, external)
        if not statement.body.strip():
            return web.Response(text="Ok.\n")
        answer = await _with_faults(front, statement, partial(_execute, front, query, statement))
    except QueryError as error:
        return _failure(error)
    return _success(answer, request.query.get("query_id") or str(uuid.uuid4()))


def _authenticate(front: Front, request: web.Request) -> None:
    if not front.password:
        return
    given = request.headers.get("X-ClickHouse-Key") or request.query.get("password") or _basic_password(request)
    if not hmac.compare_digest(given.encode(), front.password.encode()):
        text = "Code: 516. DB::Exception: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)"
        raise QueryError(516, text)


def _basic_password(request: web.Request) -> str:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class _Form:
    body: bytes
    fields: dict[str, str]


async def _body(request: web.Request) -> tuple[_Form, tuple[External, ...]]:
    """The decoded body; of a multipart request its plain fields and its tables."""
    if not request.content_type.startswith("multipart/"):
        return _Form(_decode(await request.read(), request.headers.get("Content-Encoding", "")), {}), ()
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or not part.name:
            raise QueryError(36, "Code: 36. DB::Exception: A part of the form has no name. (BAD_ARGUMENTS)")
        if part.filename is None:
            fields[part.name] = await part.text()
        else:
            files[part.name] = bytes(await part.read())
    query = {**request.query, **fields}
    tables = tuple(_external(name, data, query) for name, data in files.items())
    return _Form(b"", fields), tables


def _external(name: str, data: bytes, query: dict[str, str]) -> External:
    structure = query.get(f"{name}_structure", "")
    if not structure:
        kinds = query.get(f"{name}_types", "").split(",")
        structure = ", ".join(f"_{i + 1} {kind}" for i, kind in enumerate(kinds))
    return External(name, structure, query.get(f"{name}_format", "TabSeparated"), data)


def _decode(body: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding. Raises `QueryError` where it doesn't decode."""
    try:
        return _DECODERS[encoding](body) if body else body
    except KeyError:
        raise QueryError(89, f"Code: 89. DB::Exception: Unknown compression method: {encoding}") from None
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error) as error:
        raise QueryError(432, f"Code: 432. DB::Exception: The body isn't {encoding}: {error}") from error


def _lz4(body: bytes) -> bytes:
    """All frames: `lz4.frame.decompress` stops silently after the first, and the async client sends one per block."""
    parts: list[bytes] = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(body))
        if not frame.eof:
            raise EOFError("the last frame isn't complete")
        body = frame.unused_data or b""
    return b"".join(parts)


def _zstd(body: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.decompress(body))


_DECODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    "identity": bytes,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


def _statement(request: web.Request, query: dict[str, str], body: bytes, external: tuple[External, ...]) -> Statement:
    sql = query.get("query", "").encode()
    own = {f"{table.name}{tail}" for table in external for tail in ("_structure", "_format", "_types")}
    return Statement(
        body=sql + b"\n" + body if sql and body else sql or body,
        database=query.get("database", "") or request.headers.get("X-ClickHouse-Database", ""),
        format=request.headers.get("X-ClickHouse-Format") or query.get("default_format", "TabSeparated"),
        settings={k: v for k, v in query.items() if k not in _PROTOCOL | own and not k.startswith("param_")},
        params={k.removeprefix("param_"): v for k, v in query.items() if k.startswith("param_")},
        external=external,
    )


async def _with_faults(front: Front, statement: Statement, execute: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run it, spoiled where a test asked for it: refused; applied, answered with an error; applied, not answered."""
    if not front.faults or split_insert(statement.body) is None:
        return await execute()
    fault = front.faults.pop(0)
    if fault == "503":
        raise web.HTTPServiceUnavailable(text="Service Unavailable\n")
    answer = await execute()
    if fault == "500-after-apply":
        raise web.HTTPInternalServerError(text="Internal Server Error\n")
    await front.stopping.wait()  # "timeout"
    return answer


async def _execute(front: Front, query: dict[str, str], statement: Statement) -> Answer:
    session_id = query.get("session_id", "")
    if not session_id:
        return await _in_pool(front, partial(_run_once, front.engine, statement))
    session = await _session(front, session_id, query)
    async with session.lock:
        try:
            return await _in_pool(front, partial(run, session.connection, statement, True))
        finally:
            session.expires_at = asyncio.get_running_loop().time() + session.timeout_s
            if "readonly" in statement.settings:  # can't be taken back: the connection goes, the session is new
                front.sessions.pop(session_id, None)


def _run_once(engine: Engine, statement: Statement) -> Answer:
    connection = engine.connect()
    try:
        return run(connection, statement, kept=False)
    finally:
        connection.close()


async def _session(front: Front, session_id: str, query: dict[str, str]) -> Session:
    now = asyncio.get_running_loop().time()
    _expire(front, now)
    if session_id not in front.sessions:
        if query.get("session_check") == "1":
            raise QueryError(372, "Code: 372. DB::Exception: Session not found. (SESSION_NOT_FOUND)")
        timeout_s = float(query.get("session_timeout") or SESSION_TIMEOUT_S)
        front.sessions[session_id] = Session(front.engine.connect(), asyncio.Lock(), now + timeout_s, timeout_s)
    return front.sessions[session_id]


def _expire(front: Front, now: float) -> None:
    """Close what nobody used for its time; a session that runs a statement stays."""
    for name in [n for n, s in front.sessions.items() if s.expires_at < now and not s.lock.locked()]:
        front.sessions.pop(name).connection.close()


async def _in_pool(front: Front, work: Callable[[], Answer]) -> Answer:
    loop = asyncio.get_running_loop()
    # Shielded: a client that hangs up must not leave a statement running on a connection that gets closed.
    job = loop.run_in_executor(front.pool, work)
    try:
        return await asyncio.wait_for(asyncio.shield(job), DEADLINE_S)
    except TimeoutError:
        text = f"Code: 159. DB::Exception: Timeout exceeded: {DEADLINE_S:.0f} seconds. (TIMEOUT_EXCEEDED)"
        raise QueryError(159, text) from None


def _success(answer: Answer, query_id: str) -> web.Response:
    summary = {
        "read_rows": answer.rows_read,
        "read_bytes": answer.bytes_read,
        "written_rows": answer.rows_written,
        "written_bytes": answer.bytes_written,
    }
    headers = {
        "X-ClickHouse-Server-Display-Name": "chdb",
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Timezone": "UTC",
        "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
    }
    if answer.format:  # the client tells rows from no rows by it
        headers["X-ClickHouse-Format"] = answer.format
    return web.Response(body=answer.body, headers=headers)


def _failure(error: QueryError) -> web.Response:
    headers = {"X-ClickHouse-Exception-Code": str(error.code)}
    return web.Response(status=STATUS_OF.get(error.code, 400), text=f"{error}\n", headers=headers)


async def serve(front: Front, host: str, port: int) -> None:
    """Serve until `front.stopping` is set, then let running requests end (10 s). Prints the address once it answers."""
    runner = web.AppRunner(application(front), auto_decompress=False, shutdown_timeout=10.0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        sys.stdout.write(json.dumps({"url": f"http://{host}:{bound}", "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await front.stopping.wait()
    finally:
        await runner.cleanup()
        front.pool.shutdown(wait=True)
        for session in front.sessions.values():
            session.connection.close()


async def _main(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    front = Front(Engine(options.path), os.environ.get("KEYWATCH_FRONT_PASSWORD", ""), [] if options.faults else None)
    for number in (signal.SIGTERM, signal.SIGINT):  # after connect: chDB sets handlers of its own
        loop.add_signal_handler(number, front.stopping.set)
    try:
        await serve(front, "127.0.0.1", options.port)
    finally:
        front.engine.close()


def main() -> int:
    """Exit code 0 after SIGTERM, 2 where the folder or the port can't be had."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sinks.chdb_front", description=__doc__)
    parser.add_argument("--path", required=True, help="folder of the database; made where absent")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--faults", action="store_true", help="tests: allow POST /faults")
    os.umask(0o077)  # chDB makes hundreds of files, with what is usual
    try:
        asyncio.run(_main(parser.parse_args()))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"keywatch: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
