"""Client certificates for the brokers: bad files are one clear line, renewed ones are used by the next connection."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.config.file import load
from pipeline.config.tree import Kafka, Secret
from pipeline.doctor import check_certificate
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.runners.worker import credentials
from pipeline.sinks.kafka import client_settings
from pipeline.sinks.tls import certificate, ssl_context, user_of

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
PEM: Final = serialization.Encoding.PEM


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how)


def made(
    name: str, since: datetime = NOW - DAY, until: datetime = NOW + DAY, password: bytes = b""
) -> tuple[bytes, bytes]:
    """A certificate that signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "acme"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    built = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    return built.public_bytes(PEM), key_pem(key, password)


def write(folder: Path, public: bytes = b"", private: bytes = b"") -> None:
    """Either file, or both."""
    folder.mkdir(exist_ok=True)
    for name, pem in (("tls.crt", public), ("tls.key", private)):
        if pem:
            (folder / name).write_bytes(pem)


@pytest.fixture
def kafka(tmp_path: Path) -> Kafka:
    """Settings with a certificate and its key, which is trusted itself."""
    write(tmp_path, *made("worker"))
    file = str(tmp_path / "tls.crt")
    return Kafka(security="SSL", ca_file=file, cert_file=file, key_file=str(tmp_path / "tls.key"))


def test_certificate_and_key_are_given_together_and_only_where_there_is_tls() -> None:
    environ = {"KEYWATCH_KAFKA__SECURITY": "SSL", "KEYWATCH_KAFKA__CERT_FILE": "a"}
    with pytest.raises(ConfigError, match=r"kafka.cert_file and kafka.key_file go together"):
        load(None, environ)
    with pytest.raises(ConfigError, match=r"kafka.cert_file and kafka.key_file go together"):
        load(None, {"KEYWATCH_KAFKA__SECURITY": "SSL", "KEYWATCH_KAFKA__KEY_FILE": "a"})
    both = environ | {"KEYWATCH_KAFKA__KEY_FILE": "b"}
    assert load(None, both).kafka.key_file == "b"
    for security in ("PLAINTEXT", "SASL_PLAINTEXT"):
        with pytest.raises(ConfigError, match=rf"of no use with kafka.security {security}: set SSL or SASL_SSL"):
            load(None, both | {"KEYWATCH_KAFKA__SECURITY": security, "KEYWATCH_KAFKA__USERNAME": "u"})


def test_the_key_s_password_comes_from_a_file_as_every_secret(kafka: Kafka, tmp_path: Path) -> None:
    write(tmp_path, *made("worker", password=b"open sesame"))
    (tmp_path / "word").write_text("open sesame\n")
    environ = {
        f"KEYWATCH_KAFKA__{name.upper()}": getattr(kafka, name) for name in ("security", "cert_file", "key_file")
    }
    loaded = load(None, environ | {"KEYWATCH_KAFKA__KEY_PASSWORD_FILE": str(tmp_path / "word")}).kafka
    assert ssl_context(loaded) is not None
    assert "sesame" not in repr(loaded)


WRONG: Final = {
    "no certificate": (
        "none",
        "other",
        "",
        r"kafka.cert_file '.*none.crt': No such file or directory; Keywatch's user",
    ),
    "no key": ("other", "none", "", r"kafka.key_file '.*none.key': No such file or directory; Keywatch's user"),
    "no PEM": ("mute", "other", "", r"kafka.cert_file '.*mute.crt' is no certificate in PEM"),
    "half a PEM": ("cut", "other", "", r"kafka.cert_file '.*cut.crt' is no certificate in PEM"),
    "no PEM of a key": ("other", "mute", "", r"kafka.key_file '.*mute.key' is no private key in PEM$"),
    "expired": ("old", "old", "", r"old.crt' \(CN=worker,O=acme\) expired at 2\d{3}-\d\d-\d\d \d\d:\d\d UTC: renew it"),
    "not yet": ("young", "young", "", r"young.crt' \(CN=worker,O=acme\) begins at .*: is this machine's clock right\?"),
    "of another renewal": ("other", "young", "", r"young.key' is not the key of kafka.cert_file '.*other.crt'"),
    "no password": ("locked", "locked", "", r"locked.key' is encrypted: set kafka.key_password"),
    "a wrong password": ("locked", "locked", "no", r"is no private key in PEM, or kafka.key_password is wrong"),
    "a password too many": ("other", "other", "no", r"other.key' is not encrypted: take kafka.key_password away"),
}
"""Certificate, key and password, and what is said of them."""


@pytest.mark.parametrize(("cert", "key", "word", "said"), WRONG.values(), ids=WRONG)
def test_files_that_brokers_would_refuse_are_one_clear_line_before_they_are_asked(
    cert: str, key: str, word: str, said: str, tmp_path: Path
) -> None:
    files = {
        "old": made("worker", NOW - 3 * DAY, NOW - DAY), "young": made("worker", NOW + DAY, NOW + 3 * DAY),
        "locked": made("worker", password=b"right"), "other": made("other"), "mute": (b"words\n", b"words\n"),
        "cut": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", b""),
    }  # fmt: skip
    (tmp_path / "folder.crt").mkdir()
    for name, (public, private) in files.items():
        (tmp_path / f"{name}.crt").write_bytes(public)
        (tmp_path / f"{name}.key").write_bytes(private)
    kafka = Kafka(
        security="SSL", cert_file=str(tmp_path / f"{cert}.crt"), key_file=str(tmp_path / f"{key}.key"),
        key_password=Secret(word),
    )  # fmt: skip
    for ask in (client_settings, credentials):
        with pytest.raises(ConfigError, match=said):
            ask(kafka)


def test_without_a_certificate_nothing_changes() -> None:
    assert ssl_context(Kafka()) is None
    assert certificate(Kafka(security="SSL")) is None
    assert isinstance(ssl_context(Kafka(security="SSL")), ssl.SSLContext)
    with pytest.raises(ConfigError, match="ca_file '/none' can't be used: No such file"):
        ssl_context(Kafka(security="SSL", ca_file="/none"))


@asynccontextmanager
async def broker(kafka: Kafka, *trusted: bytes) -> AsyncIterator[Callable[[ssl.SSLContext], Awaitable[str]]]:
    """A server that asks for a certificate of these; connecting to it gives the name that it saw."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kafka.cert_file, kafka.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=b"".join(trusted).decode())

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = dict(pair for ((pair),) in writer.get_extra_info("peercert")["subject"])
        writer.write(seen["commonName"].encode())
        writer.close()

    async def seen_by(client: ssl.SSLContext) -> str:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield seen_by


async def test_renewed_files_are_used_by_the_next_connection_of_a_client_that_runs(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.sinks.tls")
    (first, key), (public, private) = made("worker"), made("renewed")
    write(tmp_path, first, key)
    async with broker(kafka, first, public) as seen_by:
        client = ssl_context(kafka)
        assert client is not None
        assert await seen_by(client) == "worker"
        write(tmp_path, public + first)
        assert await seen_by(client) == "worker", "half of a renewal: what was there goes on"
        assert "have changed and are not used: kafka.key_file" in caplog.records[-1].message
        write(tmp_path, private=private)
        assert await seen_by(client) == "renewed"
        assert "use the renewed" in caplog.records[-1].message
        write(tmp_path, b"gone")
        assert await seen_by(client) == "renewed"
        said = len(caplog.records)
        write(tmp_path, public + first, private)
        assert [await seen_by(client) for _ in range(3)] == ["renewed"] * 3
        assert len(caplog.records) == said + 1, "files that stay are read once"


async def test_a_mount_whose_link_is_set_to_other_files_is_a_renewal(kafka: Kafka, tmp_path: Path) -> None:
    """As kubelet does it: the names are links into a folder that is replaced at once."""
    old, new = made("worker"), made("renewed")
    for name, each in (("old", old), ("new", new)):
        write(tmp_path / name, *each)
    mounted, trusted = tmp_path / "data", tmp_path / "old" / "tls.crt"
    mounted.symlink_to("old")
    kafka = Kafka(
        security="SSL", ca_file=str(trusted), cert_file=str(mounted / "tls.crt"), key_file=str(mounted / "tls.key")
    )
    client = ssl_context(kafka)
    assert client is not None
    async with broker(kafka, old[0], new[0]) as seen_by:
        assert await seen_by(client) == "worker"
        (tmp_path / "other").symlink_to("new")
        (tmp_path / "other").rename(mounted)
        assert await seen_by(client) == "renewed"


@pytest.mark.parametrize(
    ("days", "left_h", "state", "words"),
    [
        (90, 24 * 40, "ok", "(40 days)"),
        (90, 24 * 4, "warn", "(4 days)"),
        (1, 12, "ok", "(12 hours)"),
        (3, 3, "warn", "(3 hours)"),
    ],
)
def test_doctor_says_how_long_it_lasts_and_the_metric_the_same(
    kafka: Kafka, tmp_path: Path, days: int, left_h: int, state: str, words: str
) -> None:
    until = datetime.now(UTC) + timedelta(hours=left_h, minutes=1)
    write(tmp_path, *made("worker", until - timedelta(days=days), until))
    [finding] = check_certificate(kafka)
    assert finding.state == state
    assert "CN=worker,O=acme lasts until" in finding.text and finding.text.endswith(words)
    assert ("renews" in finding.advice) == (state == "warn")
    ssl_context(kafka)
    told = METRICS.certificate_left.labels("kafka")
    assert next(iter(told.collect())).samples[0].value == pytest.approx(left_h / 24 / days, abs=0.002)
    Path(kafka.cert_file).unlink()
    assert next(iter(told.collect())).samples[0].value == 0.0


def test_brokers_know_us_by_the_certificate_unless_we_sign_in(kafka: Kafka) -> None:
    assert user_of(kafka) == "CN=worker,O=acme"
    assert user_of(msgspec.structs.replace(kafka, security="SASL_SSL", username="who")) == "who"
    assert user_of(Kafka()) == "ANONYMOUS"
