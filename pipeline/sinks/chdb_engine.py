"""chDB as a server's engine: a connection per request, kept ones for sessions, settings, parameters, inserts.

chDB allows one process per folder. Within it every `chdb.connect(path)` is the same engine with settings, current
database and temporary tables of its own, and connections run in parallel; so a request gets a connection, and nothing
leaks from one to the next. An anchor connection keeps the engine alive (`reference/mechanisms.md`, section 1).
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import chdb

from pipeline import private
from pipeline.errors import ConfigError

LOCK_FILE: Final = "keywatch-front.lock"
MAX_INSERT_HEAD_BYTES: Final = 1 << 16  # an INSERT statement before its data; longer ones aren't looked for

_INSERT: Final = re.compile(
    rb"\s*(INSERT\s+INTO\s+.*?)\s+FORMAT\s+(\w+)[ \t]*;?(?:[ \t]*\r?\n|[ \t]+|$)", re.IGNORECASE | re.DOTALL
)
_NOT_DATA: Final = re.compile(rb"\b(SELECT|VALUES|INFILE|WATCH)\b", re.IGNORECASE)
_QUOTED: Final = re.compile(rb"`(?:``|[^`])*`|\"[^\"]*\"|'(?:\\.|[^'])*'")
_FORMAT: Final = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*(?:SETTINGS\s[^']*)?$", re.IGNORECASE)
_CODE: Final = re.compile(r"Code: (\d+)")
_NAME: Final = re.compile(r"\w+")


class QueryError(Exception):
    """What ClickHouse refused: `code` as in its list of error codes, the text as it words it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class External:
    """One table sent along with a query."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """One request: SQL (and, behind an INSERT's head, its data), what it binds and how it wants the answer."""

    body: bytes
    database: str = ""
    format: str = "TabSeparated"
    settings: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    external: tuple[External, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes in `format` ("" where the statement has no result) and what was read and written."""

    body: bytes
    format: str
    rows_read: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0


class Engine:
    """The one chDB engine of this process on one folder. Raises `ConfigError` where another process holds it."""

    def __init__(self, path: str) -> None:
        folder = Path(path)
        private.folder(folder)
        self.path = str(folder)
        self._lock = _lock_folder(folder)
        try:
            self._anchor = _connect(self.path)
        except Exception as error:
            os.close(self._lock)
            raise ConfigError(f"{self.path} can't be opened: {error}; is another process using it?") from error

    def connect(self) -> Any:
        """A connection of its own to the same engine; 0.3 ms."""
        return _connect(self.path)

    def close(self) -> None:
        """Stop the engine; the folder is free afterwards."""
        self._anchor.close()
        os.close(self._lock)


def _connect(path: str) -> Any:
    return chdb.connect(path)  # type: ignore[no-untyped-call]


def _lock_folder(folder: Path) -> int:
    """Hold the folder for this process: chDB's own message names neither the cause nor the holder."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 20).decode() or "unknown"
        os.close(handle)
        raise ConfigError(f"{folder} is already open in process {holder}: chDB allows one, talk to its port") from error
    os.truncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def run(connection: Any, statement: Statement, kept: bool) -> Answer:
    """Run one statement; on a `kept` connection its settings are taken back. Raises `QueryError`. Blocks."""
    try:
        if statement.database:
            connection.query(f"USE {quote(statement.database)}")
        with _settings(connection, statement.settings, kept):
            for table in statement.external:
                _load(connection, table)
            return _insert(connection, statement) or _query(connection, statement)
    except (RuntimeError, chdb.ChdbError) as error:
        raise as_query_error(error) from error


@contextmanager
def _settings(connection: Any, settings: Mapping[str, str], kept: bool) -> Iterator[None]:
    # `readonly` goes last: it forbids every further SET.
    names = sorted(settings, key=lambda name: name == "readonly")
    for name in names:
        if not _NAME.fullmatch(name):
            raise QueryError(115, f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
        connection.query(f"SET {name} = '{_escape(settings[name])}'")
    try:
        yield
    finally:
        if kept and "readonly" not in settings:
            for name in names:
                connection.query(f"SET {name} = DEFAULT")


def _insert(connection: Any, statement: Statement) -> Answer | None:
    """An INSERT that brings its data, else None. All rows of the block or none."""
    found = split_insert(statement.body)
    if found is None:
        return None
    head, name, data = found
    stream = connection.send_insert(head, name)
    try:
        stream.append(data)
        result = stream.finish()
    except BaseException:
        _cancel(stream)
        raise
    return Answer(b"", "", rows_written=result.rows_written, bytes_written=result.bytes_written)


def _cancel(stream: Any) -> None:
    """Drop what was appended; the error that led here is the one to report, not a second one."""
    try:
        stream.cancel()
    except RuntimeError:
        return


def split_insert(body: bytes) -> tuple[str, str, bytes] | None:
    """(statement without FORMAT, format, data) of `INSERT INTO ... FORMAT name`, or None for everything else."""
    found = _INSERT.match(body, 0, MAX_INSERT_HEAD_BYTES)
    if found is None or _NOT_DATA.search(_QUOTED.sub(b"", found.group(1))):
        return None
    return found.group(1).decode(), found.group(2).decode(), body[found.end() :]


def _query(connection: Any, statement: Statement) -> Answer:
    sql = statement.body.decode("utf-8", "replace")
    result = connection.query(sql, statement.format, params=dict(statement.params))
    named = _FORMAT.search(sql)
    body = bytes(result.bytes() or b"")
    format_name = named.group(1) if named else statement.format
    return Answer(body, format_name if body else "", result.storage_rows_read(), result.storage_bytes_read())


def _load(connection: Any, table: External) -> None:
    connection.query(f"CREATE TEMPORARY TABLE {quote(table.name)} ({table.structure})")
    stream = connection.send_insert(f"INSERT INTO {quote(table.name)}", table.format)
    stream.append(table.data)
    stream.finish()


def quote(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def as_query_error(error: Exception) -> QueryError:
    """chDB's error with ClickHouse's code; 1002 (unknown) where it names none."""
    text = str(error)
    found = _CODE.search(text)
    return QueryError(int(found.group(1)) if found else 1002, text[found.start() :] if found else text)
