"""Which requests are notes of the audit: all, but of a page that renews itself one an hour.

An open page asks anew every 5 s; 720 rows an hour of each would hide who looked at what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

HOUR_S: Final = 3600.0
MOST: Final = 10_000
"""Persons and pages that are remembered: what is forgotten is noted once more."""


@dataclass
class Renewals:
    """Of one console. `now_s`: Unix time."""

    now_s: Callable[[], float]
    _noted_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def is_known(self, request: Request, person: str, status: int) -> bool:
        """Whether a row of the last hour says already that this person has this page open."""
        page, now_s = (person, request.scope["path"].removesuffix("/now")), self.now_s()
        if status == 200 and _renews(request) and self._noted_s.get(page, 0.0) > now_s - HOUR_S:
            return True
        self._noted_s.pop(page, None)  # so that the oldest stay in front
        self._noted_s[page] = now_s
        if len(self._noted_s) > MOST:
            del self._noted_s[next(iter(self._noted_s))]
        return False


def _renews(request: Request) -> bool:
    """What a page asks by itself: htmx says so; where a person clicked it says `boosted`, too."""
    return request.method == "GET" and "hx-request" in request.headers and "hx-boosted" not in request.headers
