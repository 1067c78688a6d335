"""The demo API's routes: what they need, how much they answer; used by the API and by the history alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_MISSING: Final = 90_000
"""Records with this number or more do not exist: the API answers 404."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route. Sizes in bytes, latency in ms: medians of log-normal laws of the given spread (sigma of ln)."""

    method: str
    template: str
    scope: str
    size_bytes: int
    latency_ms: float
    bytes_in: int = 0
    spread: float = 0.4

    @property
    def has_id(self) -> bool:
        """True where the path names one record."""
        return self.template.endswith("{id}")

    @property
    def status(self) -> int:
        """What it answers when all is well."""
        return 201 if self.method == "POST" else 200


ROUTES: Final = (
    Route("GET", "/v1/orders", "orders:read", 9_000, 24),
    Route("POST", "/v1/orders", "orders:write", 700, 38, bytes_in=900),
    Route("GET", "/v1/orders/{id}", "orders:read", 1_400, 9),
    Route("GET", "/v1/customers", "customers:read", 12_000, 28),
    Route("GET", "/v1/customers/{id}", "customers:read", 1_800, 8),
    Route("PATCH", "/v1/customers/{id}", "customers:write", 600, 21, bytes_in=400),
    Route("GET", "/v1/products", "products:read", 16_000, 18),
    Route("GET", "/v1/invoices", "invoices:read", 8_000, 22),
    Route("GET", "/v1/invoices/{id}", "invoices:read", 2_500, 12),
    Route("POST", "/v1/payments", "payments:write", 500, 55, bytes_in=700),
    Route("GET", "/v1/exports/{id}", "exports:read", 180_000, 60, spread=0.7),
    Route("GET", "/v1/reports/{id}", "reports:read", 40_000, 45, spread=0.6),
    Route("GET", "/v1/usage", "usage:read", 600, 6),
    Route("GET", "/v1/admin/users", "admin", 5_000, 15),
    Route("GET", "/v1/admin/keys", "admin", 3_000, 15),
    Route("DELETE", "/v1/admin/users/{id}", "admin", 100, 20),
)

INDEX: Final = {(route.method, route.template): number for number, route in enumerate(ROUTES)}
ORDERS: Final = INDEX["GET", "/v1/orders"]

ALL_SCOPES: Final = tuple(sorted({route.scope for route in ROUTES} - {"admin"}))
READ_SCOPES: Final = tuple(scope for scope in ALL_SCOPES if scope.endswith(":read"))


def path_of(route: Route, number: int) -> str:
    """The path of one record."""
    return route.template.replace("{id}", str(number))
