"""Planned events: one from a command's options, many from a calendar file, and whether they make sense."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline import moments
from pipeline.control.people import user
from pipeline.control.topic import check_times
from pipeline.errors import ConfigError
from pipeline.times import micros
from schemas.control import Planned

LONGEST_DAYS: Final = 400
LISTS: Final = ("owners", "roles", "environments", "routes")


def planned_of(name: str, from_: str, to: str, reason: str, scope: Mapping[str, tuple[str, ...]]) -> Planned:
    """Raises ConfigError."""
    now = moments.now()
    begins = moments.moment(from_, "--from", now) if from_ else now
    if not to or not reason.strip():
        raise ConfigError("--to and --reason are needed: when it ends, and why it is planned")
    planned = Planned(
        name=name, from_=moments.text(begins), to=moments.text(moments.moment(to, "--to", now)), reason=reason,
        at=moments.text(now), by=user(), owners=scope.get("owners", ()), roles=scope.get("roles", ()),
        environments=scope.get("environments", ()), routes=scope.get("routes", ()),
    )  # fmt: skip
    check(planned)
    return planned


def check(planned: Planned) -> None:
    """Raises ConfigError where it ends before it begins, or has no scope."""
    try:
        check_times(planned)
    except ValueError:
        raise ConfigError(f"{planned.name}: from and to are needed, as RFC 3339 times") from None
    if not micros(planned.from_) < micros(planned.to):
        raise ConfigError(f"{planned.name}: it ends ({planned.to}) before it begins ({planned.from_})")
    if micros(planned.to) - micros(planned.from_) > LONGEST_DAYS * 86_400_000_000:
        raise ConfigError(f"{planned.name}: longer than {LONGEST_DAYS} days is no event: is it a new normal?")
    if not any(getattr(planned, name) for name in LISTS):
        raise ConfigError(f"{planned.name}: give it a scope ({', '.join(LISTS)}); the route * is all of them")


def scope_words(planned: Planned) -> str:
    """Its scope in words."""
    return "; ".join(f"{name} {', '.join(values)}" for name in LISTS if (values := getattr(planned, name)))


def read_calendar(path: Path) -> list[Planned]:
    """Planned events of a TOML ([[planned]] tables) or CSV file (lists parted by |). Raises ConfigError."""
    try:
        raw = path.read_text(encoding="utf-8")
        rows: list[dict[str, Any]] = (
            tomllib.loads(raw).get("planned", []) if path.suffix == ".toml" else list(csv.DictReader(raw.splitlines()))
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"calendar {path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise ConfigError(f"calendar {path} has no event: name, from, to, reason and one of {', '.join(LISTS)}")
    return [_planned(row, number, path) for number, row in enumerate(rows, 1)]


def _planned(row: dict[str, Any], number: int, path: Path) -> Planned:
    said = {name: _listed(value) if name in LISTS else _text(value) for name, value in row.items() if value}
    try:
        planned = msgspec.convert({"type": "planned", "at": moments.text(moments.now()), "by": user(), **said}, Planned)
        check(planned)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ConfigError(f"calendar {path}, event {number}: {str(error).replace('`', '')}") from error
    return planned


def _text(value: Any) -> str:
    """TOML has times of its own."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _listed(value: Any) -> list[str]:
    return [part.strip() for part in value.split("|") if part.strip()] if isinstance(value, str) else list(value)
