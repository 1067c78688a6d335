"""One who has signed in, and what is open to him."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Role = Literal["viewer", "responder", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "responder", "admin")


class Visitor(msgspec.Struct, frozen=True):
    """One who has signed in; `until_s` is Unix time."""

    name: str
    role: Role
    until_s: float = 0.0
    nonce: str = ""

    def may(self, role: Role) -> bool:
        """Whether this role's acts are open to it."""
        return ROLES.index(self.role) >= ROLES.index(role)
