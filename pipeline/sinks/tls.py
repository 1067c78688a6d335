"""TLS towards the brokers: whom we trust, and the certificate by which they know us, as the files are now.

cert-manager and Strimzi renew a certificate by writing new files. Every new connection is made with what the files say
then; connections that stand stay, since brokers ask for a certificate at their beginning alone. So nothing restarts.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pipeline.config.tree import Kafka
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS

log = logging.getLogger(__name__)

LITTLE: Final = 0.05
"""Of a certificate's life: whoever renews it has stopped. cert-manager renews at 0.33, Strimzi at 0.08."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that has been checked."""

    subject: str  # as Kafka calls its user, unless ssl.principal.mapping.rules say otherwise
    since: datetime
    until: datetime

    def left(self, now: datetime) -> float:
        """Share of its life that is left; below 0 it has expired."""
        return (self.until - now) / (self.until - self.since)


class Renewing(ssl.SSLContext):
    """A client's context that reads the files again where they have changed."""

    def __new__(cls, kafka: Kafka) -> Renewing:
        """OpenSSL's own is only here to be a context to asyncio: `_made` makes the connections."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, kafka: Kafka) -> None:
        self._kafka, self._files, self._made = kafka, _seen(kafka), _context(kafka)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio calls for each connection. Files that are wrong, or half written, leave all as it was."""
        if (files := _seen(self._kafka)) != self._files:
            try:
                self._made, self._files = _context(self._kafka), files
                log.info("Kafka: new connections use the renewed certificate files")
            except ConfigError as error:
                log.warning("Kafka: the certificate files have changed and are not used: %s", error)
        return self._made.wrap_bio(*args, **options)


def ssl_context(kafka: Kafka) -> ssl.SSLContext | None:
    """What every client of the brokers connects with; None where the protocol has no TLS. Raises ConfigError."""
    if not kafka.security.endswith("SSL"):
        return None
    if kafka.cert_file:
        METRICS.certificate_left.labels("kafka").set_function(lambda: _left(kafka))
    return Renewing(kafka)


def certificate(kafka: Kafka) -> Certificate | None:
    """Ours, where there is one. Raises ConfigError for files that brokers would refuse or we cannot read."""
    if not kafka.cert_file:
        return None
    ours, public, now = *_read_certificate(kafka.cert_file), datetime.now(UTC)
    _check_key(kafka, public)
    about = f"kafka.cert_file {kafka.cert_file!r} ({ours.subject})"
    if now > ours.until:
        raise ConfigError(f"{about} expired at {ours.until:%Y-%m-%d %H:%M} UTC: renew it")
    if now < ours.since:
        raise ConfigError(f"{about} begins at {ours.since:%Y-%m-%d %H:%M} UTC: is this machine's clock right?")
    return ours


def user_of(kafka: Kafka) -> str:
    """How the brokers call us, for messages: the user of SASL, the subject of our certificate, or nobody."""
    if kafka.security.startswith("SASL"):
        return kafka.username
    ours = certificate(kafka)
    return "ANONYMOUS" if ours is None else ours.subject


def _read_certificate(path: str) -> tuple[Certificate, Any]:
    """The file's first, which is ours, and its public key."""
    from cryptography import x509  # loaded where it is needed

    try:
        found = x509.load_pem_x509_certificates(_read(path, "kafka.cert_file"))[0]
    except ValueError as error:
        raise ConfigError(f"kafka.cert_file {path!r} is no certificate in PEM") from error
    subject = found.subject.rfc4514_string()
    return Certificate(subject, found.not_valid_before_utc, found.not_valid_after_utc), found.public_key()


def _check_key(kafka: Kafka, public: Any) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    where = f"kafka.key_file {kafka.key_file!r}"
    pem, password = _read(kafka.key_file, "kafka.key_file"), kafka.key_password.reveal()
    try:
        key: Any = load_pem_private_key(pem, password.encode() or None)
    except TypeError as error:
        told = "is not encrypted: take kafka.key_password away" if password else "is encrypted: set kafka.key_password"
        raise ConfigError(f"{where} {told}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        told = "is no private key in PEM, or kafka.key_password is wrong" if password else "is no private key in PEM"
        raise ConfigError(f"{where} {told}") from error

    def written(each: Any) -> bytes:
        return bytes(each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    if written(key.public_key()) != written(public):
        raise ConfigError(f"{where} is not the key of kafka.cert_file {kafka.cert_file!r}: give both of one renewal")


def _read(path: str, setting: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{setting} {path!r}: {reason}; Keywatch's user must be able to read it") from error


def _context(kafka: Kafka) -> ssl.SSLContext:
    certificate(kafka)
    try:
        context = ssl.create_default_context(cafile=kafka.ca_file or None)
    except OSError as error:  # SSLError, too
        raise ConfigError(f"kafka.ca_file {kafka.ca_file!r} can't be used: {error.strerror or error}") from error
    if kafka.cert_file:
        try:
            context.load_cert_chain(kafka.cert_file, kafka.key_file, kafka.key_password.reveal())
        except OSError as error:  # OpenSSL's own rules: a short key, an old digest
            raise ConfigError(f"kafka.cert_file {kafka.cert_file!r} can't be used: {error}") from error
    return context


def _seen(kafka: Kafka) -> tuple[object, ...]:
    """What changes when the files are written anew, or a mount's link is set to others."""
    return tuple(_stamp(name) for name in (kafka.ca_file, kafka.cert_file, kafka.key_file) if name)


def _stamp(name: str) -> object:
    """None for no file, and for one that can't be read: who opens it says so."""
    try:
        told = Path(name).stat()
    except OSError:
        return None
    return told.st_ino, told.st_mtime_ns, told.st_size


def _left(kafka: Kafka) -> float:
    """For the metric, at each scrape: 0 where the file is not usable."""
    try:
        return _read_certificate(kafka.cert_file)[0].left(datetime.now(UTC))
    except ConfigError:
        return 0.0
