"""Plain keys and plain attacks: a second world, which shares nothing with keybench.

What ships is counted over keybench's traffic, and what keybench says of it is said of the same kind of traffic: static
files, forum visitors, thinned tweets. Here are four kinds of keys as anybody would write them down who has never seen
that: office hours, a service by day and night, a nightly batch, a few calls a week; sizes are log-normal, addresses
fixed. And fifteen attacks that somebody tries on the first day with the product.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from schemas.event import Event

US: Final = 1_000_000
HOUR_US: Final = 3600 * US
DAY_US: Final = 24 * HOUR_US
START_US: Final = 1_777_593_600 * US
"""Friday 2026-05-01 00:00 UTC."""
WEEKEND: Final = (1, 2)  # days since START_US modulo 7
KINDS: Final = ("office", "service", "batch", "sparse")
HOMES: Final = ("8.8.8", "151.101.1", "104.16.4", "13.107.42", "17.253.144", "185.60.216", "140.82.121")
ABROAD: Final = ("185.220.101", "45.155.205", "91.108.4", "77.88.8", "202.12.27")
"""Of DE, RU, NL, RU, JP; of the second the shipped database knows no network, only the country."""
AGENTS: Final = ("python-requests/2.31", "okhttp/4.9", "axios/1.4.0", "Go-http-client/1.1", "Safari/605")
Route = tuple[str, str, int]  # method, template, median bytes of an answer
ROUTES: Final[tuple[Route, ...]] = (
    ("GET", "/v1/orders/{id}", 2_500), ("GET", "/v1/orders", 18_000), ("POST", "/v1/orders", 900),
    ("GET", "/v1/customers/{id}", 1_800), ("GET", "/v1/invoices/{id}/pdf", 90_000), ("GET", "/v1/status", 60),
    ("PATCH", "/v1/orders/{id}", 700), ("GET", "/v1/products", 40_000), ("GET", "/v1/reports/{id}", 300_000),
)  # fmt: skip
OUTCOMES: Final = {401: "invalid", 403: "denied", 429: "rate_limited"}
ERRORS: Final = 0.005  # share of calls


@dataclass(frozen=True)
class Plain:
    """One key and how it is used."""

    name: str
    kind: int  # of KINDS
    address: str
    agent: str
    routes: tuple[Route, ...]
    scatter: float  # standard deviation of ln(bytes) of one route's answers
    rng: random.Random

    def call(
        self, at_us: int, route: Route | None = None, address: str = "", agent: str = "", status: int = 200,
        size: int = 0, number: int = 0,
    ) -> Event:  # fmt: skip
        """One request; what is not given is the owner's."""
        rng = self.rng
        method, template, median = route or rng.choices(self.routes, (8, 4, 2, 1))[0]
        if status == 200 and rng.random() < ERRORS:
            status = rng.choice((404, 429, 500))
        return Event(
            key_id=self.name, ts_us=at_us, client_ip=address or self.address, method=method, route=template,
            path=template.replace("{id}", str(number or rng.randrange(1, 60))), status=status,
            outcome=OUTCOMES.get(status, "success"), latency_ms=20.0,
            bytes_out=(size or int(median * math.exp(rng.gauss(0, self.scatter)))) if status == 200 else 90,
            user_agent=agent or self.agent, request_id=f"{self.name}-{at_us}-{rng.randrange(1 << 40)}",
        )  # fmt: skip

    def some(self, at_us: int, count: int, gap_s: float, **what: Any) -> list[Event]:
        """Calls one after another; of `what` each may be a function of the call's number."""
        made = []
        for i in range(count):
            made.append(self.call(at_us, **{name: each(i) if callable(each) else each for name, each in what.items()}))
            at_us += int(gap_s * US * self.rng.uniform(0.5, 1.5))
        return made

    def day(self, day: int) -> list[Event]:
        """What the owner does on that day."""
        rng, begin_us, weekend = self.rng, START_US + day * DAY_US, day % 7 in WEEKEND
        if self.kind == 0:
            visits = 0 if weekend else rng.randrange(4, 9)
            return [
                call
                for _ in range(visits)
                for call in self.some(
                    begin_us + int(rng.uniform(8, 17) * HOUR_US), 1 + int(rng.expovariate(1 / 6)), 15.0
                )
            ]
        if self.kind == 1:
            made, at_us = [], begin_us
            while at_us < begin_us + DAY_US:
                wave = 1 + 0.8 * math.sin((at_us / HOUR_US % 24 - 6) / 12 * math.pi)
                at_us += int(rng.expovariate(12 * wave * (0.7 if weekend else 1.0) / 3600) * US)
                made.append(self.call(at_us))
            return made
        if self.kind == 2:
            begin_us += int((2 * 3600 + rng.gauss(0, 120)) * US)
            return self.some(begin_us, int(150 * math.exp(rng.gauss(0, 0.15))), 1.5, route=self.routes[0])
        if rng.random() < 0.4:
            return self.some(begin_us + int(rng.uniform(7, 19) * HOUR_US), rng.randrange(1, 5), 20.0)
        return []


def plain_keys(count: int, seed: int) -> list[Plain]:
    """Keys of the four kinds in turn, each with a random stream of its own."""
    rng = random.Random(seed)
    return [
        Plain(f"key_{n:03}", n % 4, f"{HOMES[n % len(HOMES)]}.{10 + n % 200}", AGENTS[n % len(AGENTS)],
              tuple(rng.sample(ROUTES, 4)), rng.choice((0.2, 0.6, 1.0)), random.Random(f"{seed}/{n}"))
        for n in range(count)
    ]  # fmt: skip


Attack = Callable[[Plain, int], list[Event]]


def _missing(i: int) -> Route:
    word = ("admin", "wp", "env", "debug", "internal", "actuator", "graphql", "backup")[i % 8]
    return "GET", f"/{word}/{i // 8}", 90


def _denied(i: int) -> Route:
    return "POST", ("/v1/admin/users", "/v1/keys", "/v1/roles", "/v1/tenants", "/v1/secrets", "/v1/billing")[i % 6], 90


ATTACKS: Final[dict[str, Attack]] = {
    "60 from abroad by another client": lambda k, at: k.some(at, 60, 5, address=f"{ABROAD[0]}.7", agent="curl/8"),
    "10 from abroad by another client": lambda k, at: k.some(at, 10, 20, address=f"{ABROAD[2]}.7", agent="curl/8"),
    "60 from abroad, network unknown, same client": lambda k, at: k.some(at, 60, 5, address=f"{ABROAD[1]}.7"),
    "60 from five networks abroad, same client": lambda k, at: k.some(
        at, 60, 10, address=lambda i: f"{ABROAD[i % 5]}.{i % 200 + 1}"
    ),
    "5 first deletions from abroad": lambda k, at: k.some(
        at, 5, 10, route=("DELETE", "/v1/customers/{id}", 60), address=f"{ABROAD[3]}.9"
    ),
    "3 keys made by another client": lambda k, at: k.some(at, 3, 30, route=("POST", "/v1/keys", 400), agent="curl/8"),
    "1,000 calls in two minutes": lambda k, at: k.some(at, 1000, 0.12),
    "500 objects one by one": lambda k, at: k.some(
        at, 500, 1, route=("GET", "/v1/customers/{id}", 1800), number=lambda i: 1000 + i
    ),
    "40 paths that are not there": lambda k, at: k.some(at, 40, 2, route=_missing, status=404),
    "12 refused calls of admin routes": lambda k, at: k.some(at, 12, 4, route=_denied, status=403),
    "30 answers of 30 times the size": lambda k, at: k.some(at, 30, 5, route=k.routes[0], size=30 * k.routes[0][2]),
    "8 answers of 1,000 times the size": lambda k, at: k.some(at, 8, 5, route=k.routes[0], size=1000 * k.routes[0][2]),
    "20 first deletions, nothing else odd": lambda k, at: k.some(at, 20, 10, route=("DELETE", "/v1/orders/{id}", 60)),
    "200 usual calls at three in the night": lambda k, at: k.some(at // DAY_US * DAY_US + 3 * HOUR_US, 200, 10),
}
"""Name -> what is added to a key's traffic from some minutes after a call of its owner's on."""
