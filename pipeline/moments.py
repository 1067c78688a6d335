"""Times as people give them to a command: RFC 3339, or a span from now as 30m, 12h, 14d, 2w."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.errors import ConfigError

SPANS_S: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
FARTHEST: Final = timedelta(days=400)


def now() -> datetime:
    """The wall clock, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def text(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(words: str, option: str) -> timedelta:
    """Raises ConfigError where it is no span."""
    found = re.fullmatch(r"(\d{1,5})([mhdw])", words)
    if found is None or not int(found[1]):
        raise ConfigError(f"{option} {words!r}: give a span as 30m, 12h, 7d or 2w")
    return timedelta(seconds=int(found[1]) * SPANS_S[found[2]])


def moment(words: str, option: str, since: datetime) -> datetime:
    """A time, or a span after `since`. Raises ConfigError."""
    if re.fullmatch(r"\d{1,5}[mhdw]", words):
        return since + span(words, option)
    try:
        at = datetime.fromisoformat(words)
    except ValueError:
        raise ConfigError(
            f"{option} {words!r} is no time: give RFC 3339 (2026-12-01T12:00:00Z) or a span from now (12h, 14d)"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def past(words: str, option: str, end: datetime) -> datetime:
    """A time, or a span back from `end`. Raises ConfigError."""
    return end - span(words, option) if words[-1:] in SPANS_S else moment(words, option, end)


def future(words: str, option: str, since: datetime) -> str:
    """A time to come, at most 400 days off, as text. Raises ConfigError."""
    at = moment(words, option, since)
    if not since < at <= since + FARTHEST:
        raise ConfigError(f"{option} {text(at)}: give a time to come, at most {FARTHEST.days} days off")
    return text(at)


def stamp(words: str) -> float:
    """RFC 3339 to Unix seconds."""
    return datetime.fromisoformat(words).timestamp()


def second_of_us(time_us: int) -> str:
    """Microseconds UTC to the second, as people read it."""
    return at_us(time_us).strftime("%Y-%m-%d %H:%M:%SZ")


def at_us(time_us: int) -> datetime:
    """Microseconds UTC as a time."""
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def us_of(at: datetime) -> int:
    """A time as microseconds UTC."""
    return round(at.timestamp() * 1e6)


def of_us(time_us: int) -> str:
    """Microseconds UTC as people read it."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%MZ")
