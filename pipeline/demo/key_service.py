"""The demo's key service: makes secrets, checks them, and takes a key out of use when a signed webhook says so.

Only a hash of each secret is kept; what goes on to Kafka is the public key id. The order `key.revoke` is obeyed
once: the same order again gets the same answer (reference/response.md, section 4).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from schemas.key import Key

Status = Literal["revoked", "refused"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`data` of a webhook of type `key.revoke`."""

    key_id: str
    key_version: int = 0
    incident_id: str = ""
    response_id: str = ""
    reason: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the key service says to an order."""

    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Revoked:
    """One key that was taken out of use, and by which order."""

    key_id: str
    order: Order
    at_us: int


@dataclass(slots=True)
class KeyService:
    """All keys by the hash of their secret. Not thread-safe: one event loop owns it."""

    keys: dict[str, Key] = field(default_factory=dict)
    revoked: dict[str, Revoked] = field(default_factory=dict)
    _by_hash: dict[bytes, str] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)

    def issue(self, key: Key) -> str:
        """Take a key into use; returns its secret, the only time it is ever seen."""
        secret = f"demo_sk_{secrets.token_urlsafe(24)}"
        self.keys[key.key_id] = key
        self._by_hash[_hash(secret)] = key.key_id
        return secret

    def find(self, secret: str) -> Key | None:
        """The key of a secret, whatever its status; None for a secret that was never issued."""
        key_id = self._by_hash.get(_hash(secret))
        return None if key_id is None else self.keys[key_id]

    def obey(self, order: Order, idempotency_key: str, at_us: int) -> Answer:
        """Revoke at once. Raises KeyError for a key that does not exist."""
        if idempotency_key and idempotency_key in self._answers:
            return self._answers[idempotency_key]
        answer = self._revoke(self.keys[order.key_id], order, at_us)
        if idempotency_key:
            self._answers[idempotency_key] = answer
        return answer

    def _revoke(self, key: Key, order: Order, at_us: int) -> Answer:
        if order.key_version and order.key_version < key.version:
            return Answer(status="refused", reason=f"the key has been rotated: version {key.version} is in use")
        if key.status != "revoked":
            self.keys[key.key_id] = msgspec.structs.replace(key, status="revoked")
            self.revoked[key.key_id] = Revoked(key.key_id, order, at_us)
        return Answer(status="revoked")


def issue_all(service: KeyService, keys: Sequence[Key]) -> dict[str, str]:
    """key_id -> secret: what the owners of the keys hold."""
    return {key.key_id: service.issue(key) for key in keys}


def _hash(secret: str) -> bytes:
    """Plain SHA-256: 192 random bits cannot be guessed, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).digest()
