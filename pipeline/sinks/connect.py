"""ClickHouse clients out of the configuration, and its errors by consequence.

`http://host:port`, `https://...` and `chdb:///absolute/path` (embedded, one process alone), by clickhouse-connect.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    DataError,
    NotSupportedError,
    ProgrammingError,
)

from pipeline.config.tree import ClickHouse
from pipeline.errors import ConfigError, Fatal, Retry

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 5.0  # below the server's own 10 s, which would close a connection under a request

# Codes of ClickHouse's ErrorCodes.cpp that time or an operator heals: NETWORK_ERROR, SOCKET_TIMEOUT, TIMEOUT_EXCEEDED,
# TOO_MANY_SIMULTANEOUS_QUERIES, QUOTA_EXCEEDED, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, TOO_MANY_PARTS,
# NOT_ENOUGH_SPACE, ALL_CONNECTION_TRIES_FAILED, QUERY_WAS_CANCELLED, KEEPER_EXCEPTION, UNEXPECTED_END_OF_FILE,
# CANNOT_WRITE_TO_FILE_DESCRIPTOR, ABORTED, TOO_FEW_LIVE_REPLICAS, UNKNOWN_STATUS_OF_INSERT; with replicas also
# NO_ZOOKEEPER, NO_ACTIVE_REPLICAS, UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE, REPLICA_IS_NOT_IN_QUORUM, UNFINISHED (a
# mutation, on a replica that is away).
PASSING_CODES: Final = frozenset(
    {209, 210, 159, 202, 201, 241, 242, 252, 243, 279, 394, 999, 99, 75, 236, 285, 319, 225, 254, 286, 289, 341}
)
DENIED_CODES: Final = frozenset({192, 193, 194, 497, 516})  # unknown user, wrong password, no right
AWAY: Final = (Retry, Fatal, ConfigError, ClickHouseError, OSError)
"""What asking it may raise, for those who can do without an answer and ask again."""


def is_embedded(config: ClickHouse) -> bool:
    """Whether the url is chdb://."""
    return config.url.startswith("chdb:")


def display_name(config: ClickHouse) -> str:
    """The address for messages, without any user information."""
    url = urlsplit(config.url)
    return config.url if is_embedded(config) else f"{url.scheme}://{url.hostname}:{_port(config)}"


def _port(config: ClickHouse) -> int:
    url = urlsplit(config.url)
    return url.port or (8443 if url.scheme == "https" else 8123)


def _arguments(config: ClickHouse, database: str | None) -> dict[str, Any]:
    url = urlsplit(config.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"clickhouse.url is {url.scheme}://...: expected http://, https:// or chdb:///folder")
    if config.ca_file and not Path(config.ca_file).is_file():
        raise ConfigError(f"clickhouse.ca_file {config.ca_file!r} is no file")
    return {
        "interface": url.scheme,
        "host": url.hostname,
        "port": _port(config),
        "username": config.username,
        "password": config.password.reveal(),
        "database": database,
        "ca_cert": config.ca_file or None,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "send_receive_timeout": config.timeout_s,
        "autogenerate_session_id": False,  # statements of one client may run at once
        "query_retries": 0,
    }


def connect(config: ClickHouse, database: str | None) -> Client:
    """A blocking client; `database` None is the server's default. Raises `Retry` or `ConfigError`."""
    try:
        if is_embedded(config):
            path = config.url.removeprefix("chdb://")
            return clickhouse_connect.get_client(interface="chdb", path=path, database=database or "default")
        return clickhouse_connect.get_client(**_arguments(config, database))
    except ClickHouseError as error:
        raise _on_connect(config, error) from error


def without_pandas() -> None:
    """As if pandas weren't installed: else the client loads it at its first insert, 0.9 s and 60 MB for nothing.

    It asks of all that is inserted whether it is a DataFrame; a process that calls this reads and writes none.
    """
    vars(options).update(pd=None, pd_time_test=None)


async def connect_async(config: ClickHouse, database: str | None) -> AsyncClient:
    """The client of the event loop, for http(s) only. Raises `Retry` or `ConfigError`."""
    client = AsyncClient(**_arguments(config, database), keepalive_timeout=KEEPALIVE_S)
    try:
        return await client.__aenter__()
    except BaseException as error:
        await client.close()  # `get_async_client` leaves the session open here
        if isinstance(error, ClickHouseError):
            raise _on_connect(config, error) from error
        raise


def _on_connect(config: ClickHouse, error: ClickHouseError) -> Exception:
    code = error_code(error)
    if code in DENIED_CODES:
        return ConfigError(
            f"{display_name(config)} refuses user {config.username!r}: check clickhouse.username and password"
        )
    if code == 81:
        shadow = config.database.partition("_shadow_")[2]
        command = f"keywatch migrate --shadow {shadow}" if shadow else "keywatch migrate"
        return ConfigError(f"{display_name(config)} has no database {config.database!r}: run `{command}`")
    if found := re.search(r"CERTIFICATE_VERIFY_FAILED\] ([^(]+)", str(error)):
        return Retry(f"{display_name(config)} is not trusted: {found[1].strip()}; check clickhouse.ca_file")
    return Retry(f"{display_name(config)} doesn't answer: {_transport(error)}; check clickhouse.url and the server")


def _transport(error: ClickHouseError) -> str:
    """The system's own words out of urllib3's, which name each layer; else the error's first line."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found.group(1).strip() if found else first_line(error)


def by_consequence(where: str, error: Exception) -> Exception:
    """`Retry` for what may pass (transport, overload, unavailable), `Fatal` for what the same call will always get."""
    code = error_code(error)
    if code in PASSING_CODES:
        return Retry(f"{where}: {first_line(error)}")
    if isinstance(error, (DataError, ProgrammingError, NotSupportedError)):  # the client's own: the rows don't fit
        return Fatal(f"{where}: {first_line(error)}")
    if code in DENIED_CODES:
        return Fatal(f"{where}: {first_line(error)}; see deploy/clickhouse/users.sql for the rights")
    if isinstance(error, DatabaseError) and code > 0:
        return Fatal(f"{where}: {first_line(error)}; does the schema fit? run `keywatch migrate`")
    return Retry(f"{where}: {first_line(error)}")


def error_code(error: Exception) -> int:
    """ClickHouse's code; 0 where the answer had none (a proxy's 502, a broken connection, a timeout)."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else 0


def first_line(error: BaseException) -> str:
    """An error in one line of at most 300 characters, without the server's stack trace."""
    text = " ".join(str(error).split("Stack trace", maxsplit=1)[0].split())
    return text[:300] or type(error).__name__
