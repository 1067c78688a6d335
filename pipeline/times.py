"""Times of messages and rows: RFC 3339 as text, microseconds UTC as numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(ts_us: int) -> str:
    """Microseconds UTC as text with six digits, so that texts sort as times do."""
    return datetime.fromtimestamp(ts_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_us % 1_000_000:06d}Z"


@lru_cache(4096)
def micros(text: str, missing: int = 0) -> int:
    """RFC 3339 to microseconds; `missing` for "". Raises ValueError."""
    if not text:
        return missing
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    whole = int(at.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + at.microsecond
