"""Log lines to stderr, for people or as JSON, with secrets taken out before any handler sees them.

Redaction sits in the record factory, not only in our handler: Faust's worker clears the root logger's handlers and
puts its own there, redirects stdout and stderr into the log, and pytest or an embedding process add theirs; all of
them get records from the one factory. Message, arguments and traceback are judged word by word with
`pipeline.secrets.looks_secret`; fields given by `extra=` are judged when our handler writes them.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from pipeline.secrets import looks_secret

STARS: Final = "[redacted]"
_WORD: Final = re.compile(r"[^\s\"'`,;<>(){}\[\]|\\=&?:/@#]{8,}")  # shorter words hold no secret (rules of secrets.py)
_SIGNING: Final = re.compile(r"\bwh(?:sec|sk)_[A-Za-z0-9+/=_-]{8,}")  # base64: '/' would cut it into harmless words
_HEX_OR_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_OWN: Final = re.compile(
    r"/(?:incidents|api/v1/acts|api/v1/cases)/(?:case_)?[0-9a-f]{16,64}(?:/(?:now|judge|undo|ack))?"
)
"""Whole addresses of the console with an id of ours: hex digits pass alone, too. What callers choose isn't here."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY: Final = ("aiokafka", "faust", "mode", "kafka", "asyncio", "clickhouse_connect", "numba")


def redact(text: str) -> str:
    """`text` with everything that looks like a secret replaced by `STARS`."""
    text = _SIGNING.sub(STARS, text)
    text = _HEX_OR_BASE64.sub(_judge, text)
    return _WORD.sub(_judge, text)


def _judge(word: re.Match[str]) -> str:
    text = word.group()
    return STARS if looks_secret(text) and not _OWN.fullmatch(text) else text


def set_up(level: str = "INFO", as_json: bool = False, stream: TextIO | None = None) -> logging.Handler:
    """Make the root logger write to `stream` (stderr as the process got it). Repeatable; returns the handler.

    Where something clears the root's handlers afterwards (Faust), hand it this one: `loghandlers=[handler]`.
    """
    logging.setLogRecordFactory(redacting_record)
    handler = make_handler(as_json, stream)
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, (JsonLines, HumanLines))]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:  # their INFO tells of every poll and partition; ours says what matters of it
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    return handler


def make_handler(as_json: bool, stream: TextIO | None = None) -> logging.Handler:
    """A handler in our format. `sys.__stderr__` rather than `sys.stderr`, which Faust turns into a log of its own."""
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(JsonLines() if as_json else HumanLines())
    return handler


def redacting_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """The record factory: message and arguments made one text, secrets out; so is the traceback."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = redact(_message(record)), None
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = redact(_PLAIN.formatException(record.exc_info))
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    return record


_PLAIN: Final = logging.Formatter()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # a wrong format string must not end the process, nor leak its arguments
        return f"{record.msg} (its {len(record.args or ())} arguments do not fit)"


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: value if isinstance(value, (int, float)) else redact(str(value)) for name, value in extras.items()}


class HumanLines(logging.Formatter):
    """12:00:01.250 WARNING pipeline.respond: the message name=value"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        head = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {record.levelname} {record.name}"
        line = f"{head}: {record.getMessage()}{extras}"
        return "\n".join(text for text in (line, record.exc_text, record.stack_info) if text)


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the extras, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in _extras(record).items() if name not in line}
        if record.exc_text:
            line["traceback"] = record.exc_text
        return msgspec.json.encode(line).decode()
