"""Approvers with keys of their own, for tests; their private halves in memory."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.config.policy import Approver
from pipeline.respond.approval import signed_text
from pipeline.respond.ledger.entries import Signed


@dataclass(frozen=True)
class Person:
    """One who can sign."""

    name: str
    private: Ed25519PrivateKey

    @property
    def approver(self) -> Approver:
        public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Approver(name=self.name, public_key=base64.b64encode(public).decode())

    def says(self, ticket: str, yes: bool = True, name: str = "", responder: str = "") -> Signed:
        signature = self.private.sign(signed_text(ticket, yes, name or self.name))
        return Signed(
            ticket=ticket, yes=yes, person=name or self.name, signature=base64.b64encode(signature).decode(),
            responder=responder,
        )  # fmt: skip


def person(name: str) -> Person:
    """The same key for the same name."""
    return Person(name, Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"-")))


ANN, BOB, EVE = person("ann"), person("bob"), person("eve")
BOTH = (ANN.approver, BOB.approver)
