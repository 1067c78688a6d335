"""Approvals: signed by a person's own Ed25519 key, bound to one ticket, checked by every reader of the topic.

The private half stays with the person (a file of mode 0600); the configuration and every proposal hold the public one,
so that a responder can check an approval and never make one. The ticket is a hash over all that would be done (key,
version, incident, rung, parameters) and its place on the topic: an approval fits nothing else and serves once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipeline import private
from pipeline.config.policy import Approver
from pipeline.errors import ConfigError
from pipeline.respond.ledger.entries import Signed


def signed_text(ticket: str, yes: bool, person: str) -> bytes:
    """What is signed."""
    return "\n".join(("keywatch approval v1", ticket, "yes" if yes else "no", person)).encode()


def is_genuine(word: Signed, approvers: Iterable[Approver]) -> bool:
    """Whether one of these approvers, by name, signed it."""
    return any(each.name == word.person and _verified(word, each) for each in approvers)


def _verified(word: Signed, approver: Approver) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(approver.public_key, validate=True))
        key.verify(base64.b64decode(word.signature, validate=True), signed_text(word.ticket, word.yes, word.person))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def people(words: Iterable[Signed], approvers: tuple[Approver, ...]) -> tuple[str, ...]:
    """Different people who truly said yes: two names with one key are one."""
    keys = {each.name: each.public_key for each in approvers}
    by_key = {keys[word.person]: word.person for word in words if word.yes and is_genuine(word, approvers)}
    return tuple(sorted(by_key.values()))


def sign(ticket: str, yes: bool, person: str, key_file: Path, reason: str = "", responder: str = "") -> Signed:
    """Raises ConfigError for a file that holds no such key."""
    signature = _read(key_file).sign(signed_text(ticket, yes, person))
    return Signed(
        ticket=ticket, yes=yes, person=person, signature=base64.b64encode(signature).decode(), reason=reason,
        responder=responder,
    )  # fmt: skip


def make(name: str, key_file: Path) -> Approver:
    """A new key pair: the private half into the file, which must not exist; returns the public one."""
    if key_file.exists():
        raise ConfigError(f"{key_file} exists: an approver's key is never overwritten")
    key = Ed25519PrivateKey.generate()
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    private.write(key_file, base64.b64encode(raw) + b"\n")
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Approver(name=name, public_key=base64.b64encode(public).decode())


def public_half(key_file: Path) -> str:
    """The public key of a private one, base64. Raises ConfigError."""
    public = _read(key_file).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(public).decode()


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes().strip(), validate=True))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, binascii.Error):
        raise ConfigError(f"{path} holds no approver's key: `keywatch respond approver NAME` makes one") from None
