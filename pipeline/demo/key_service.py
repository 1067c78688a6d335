"""The demo's key service: makes secrets, checks them, and takes a key out of use, or fences it, by signed webhooks.

Only a hash of each secret is kept; what goes on to Kafka is the public key id. An order is obeyed
once: the same order again gets the same answer (reference/response.md, section 4).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

import msgspec

from pipeline.times import rfc3339
from schemas.key import Key

Status = Literal["revoked", "refused", "done"]
Network = IPv4Network | IPv6Network


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`data` of a webhook of type `key.revoke`, `key.fence` or `key.fence.undo`."""

    key_id: str
    key_version: int = 0
    incident_id: str = ""
    response_id: str = ""
    reason: str = ""
    networks: tuple[str, ...] = ()  # fence: where the key goes on working


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
    fences: dict[str, tuple[Network, ...]] = field(default_factory=dict)
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

    def keeps_out(self, key_id: str, address: str) -> bool:
        """Whether the key is fenced, and this address lies outside."""
        fence = self.fences.get(key_id)
        return fence is not None and not any(ip_address(address) in network for network in fence)

    def obey(self, order: Order, idempotency_key: str, at_us: int, what: str = "key.revoke") -> Answer:
        """Revoke or fence at once. Raises KeyError for a key that does not exist, ValueError for no network."""
        if idempotency_key and idempotency_key in self._answers:
            return self._answers[idempotency_key]
        key = self.keys[order.key_id]
        answer = self._revoke(key, order, at_us) if what == "key.revoke" else self._fence(key, order, what)
        if idempotency_key:
            self._answers[idempotency_key] = answer
        return answer

    def _fence(self, key: Key, order: Order, what: str) -> Answer:
        if what == "key.fence":
            self.fences[key.key_id] = tuple(ip_network(each) for each in order.networks)
        else:
            self.fences.pop(key.key_id, None)
        return Answer(status="done")

    def _revoke(self, key: Key, order: Order, at_us: int) -> Answer:
        if order.key_version and order.key_version < key.version:
            return Answer(status="refused", reason=f"the key has been rotated: version {key.version} is in use")
        if key.status != "revoked":
            self.keys[key.key_id] = msgspec.structs.replace(key, status="revoked", ended_at=rfc3339(at_us))
            self.revoked[key.key_id] = Revoked(key.key_id, order, at_us)
        return Answer(status="revoked")


def issue_all(service: KeyService, keys: Sequence[Key]) -> dict[str, str]:
    """key_id -> secret: what the owners of the keys hold."""
    return {key.key_id: service.issue(key) for key in keys}


def _hash(secret: str) -> bytes:
    """Plain SHA-256: 192 random bits cannot be guessed, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).digest()
