"""Keys with a past, and thieves that use them: what provokes incidents at known times while a load goes on.

A victim was used for two weeks from one network by one client. Then a stranger (another country, another client) tries
routes that the key never used; some event of his opens the incident. All of it follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from schemas.event import Event

DAY_US: Final = 86_400_000_000
HISTORY_DAYS: Final = 14
VISITS_PER_DAY: Final = 8
STEPS: Final = 20
"""Requests of one attack; one of the first opens the incident."""
APART_US: Final = 25_000
STRANGERS: Final = ("185.220.101.4", "45.155.205.7", "91.240.118.172")


class Attacks(msgspec.Struct, frozen=True, kw_only=True):
    """How many, and how long until the last one begins."""

    count: int
    seconds: float
    seed: int = 11


def victim(number: int) -> str:
    """Key id."""
    return f"pk_victim{number:04d}"


def history(attacks: Attacks, now_us: int) -> Iterator[Event]:
    """What the victims did until a few minutes before `now_us`, in order of time."""
    rng = np.random.default_rng(attacks.seed)
    n = attacks.count * HISTORY_DAYS * VISITS_PER_DAY
    last_us = now_us - 300_000_000
    times = np.sort(rng.integers(last_us - HISTORY_DAYS * DAY_US, last_us, n)).tolist()
    for number, (ts_us, key) in enumerate(zip(times, rng.integers(0, attacks.count, n).tolist(), strict=True)):
        yield Event(
            key_id=victim(key), ts_us=ts_us, client_ip=f"52.{key % 200}.7.9", method="GET",
            path=f"/v1/orders/{number % 977}", status=200, outcome="success", latency_ms=20.0, bytes_in=300,
            bytes_out=2_000 + number % 500, user_agent="python-requests/2.32.3", environment="live",
            request_id=f"h-{number:x}", source="native",
        )  # fmt: skip


def attack(attacks: Attacks, start_us: int) -> Iterator[Event]:
    """All attacks in order of time; the first begins at `start_us`, each at a time of its own."""
    rng = np.random.default_rng([attacks.seed, 1])
    begins = start_us + np.sort(rng.random(attacks.count) * attacks.seconds * 1e6).astype(np.int64)
    times = begins[:, None] + np.arange(STEPS)[None, :] * APART_US
    order = np.argsort(times, axis=None, kind="stable")
    for place in order.tolist():
        key, step = divmod(place, STEPS)
        yield Event(
            key_id=victim(key), ts_us=int(times[key, step]), client_ip=STRANGERS[key % len(STRANGERS)], method="GET",
            path=f"/v1/admin/area{step}", status=(403, 404, 200)[step % 3],
            outcome="denied" if step % 3 == 0 else "success", latency_ms=9.0, bytes_in=280, bytes_out=400,
            user_agent="curl/8.7.1", environment="live", request_id=f"a-{place:x}", source="native",
        )  # fmt: skip
