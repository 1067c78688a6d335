"""A small SMTP server on loopback, over plain and TLS, that can be told to misbehave at any command."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "mail.example.com"


@cache
def certificate(host: str = HOST) -> tuple[bytes, bytes]:
    """A self-signed certificate of this name and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def contexts(host: str = HOST) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, that of a client who trusts it)."""
    public, private = certificate(host)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "both.pem"
        file.write_bytes(public + private)
        server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=public.decode())


@dataclass
class MailServer:
    """`answers`: command -> what is said instead of yes (None: nothing at all). `log`: commands as they came."""

    tls: ssl.SSLContext | None = None
    answers: dict[str, bytes | None] = field(default_factory=dict)
    can: tuple[str, ...] = ("STARTTLS", "AUTH PLAIN")
    port: int = 0
    log: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    logins: list[tuple[str, bool]] = field(default_factory=list)  # (name and password, encrypted)
    talking: set[asyncio.Task[None]] = field(default_factory=set)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.talking.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._talk(reader, writer)
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        encrypted = False
        self._say(writer, "GREETING", b"220 hello\r\n")
        while line := (await reader.readline()).decode().strip():
            self.log.append(line)
            verb = line.split()[0].upper()
            if verb == "EHLO":
                can = [each for each in self.can if not (encrypted and each == "STARTTLS")]
                lines = ["250-" + HOST, *(f"250-{each}" for each in can), "250 8BITMIME"]
                self._say(writer, verb, ("\r\n".join(lines) + "\r\n").encode())
            elif verb == "STARTTLS":
                self._say(writer, verb, b"220 go on\r\n")
                if self.tls and verb not in self.answers:
                    await writer.start_tls(self.tls)
                    encrypted = True
            elif verb == "AUTH":
                self.logins.append((base64.b64decode(line.split()[2]).decode(), encrypted))
                self._say(writer, verb, b"235 ok\r\n")
            elif verb == "DATA":
                self._say(writer, verb, b"354 go on\r\n")
                if self.answers.get("DATA", b"") == b"":
                    self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                    self._say(writer, "END", b"250 taken\r\n")
            else:
                self._say(writer, verb, b"250 ok\r\n")

    def _say(self, writer: asyncio.StreamWriter, at: str, usual: bytes) -> None:
        answer = self.answers.get(at, usual)
        if answer is not None:
            writer.write(answer)


@asynccontextmanager
async def mail_server(this: MailServer, first: ssl.SSLContext | None = None) -> AsyncIterator[MailServer]:
    """Running; `first`: TLS from the first byte."""
    server = await asyncio.start_server(this.serve, "127.0.0.1", 0, ssl=first)
    this.port = int(server.sockets[0].getsockname()[1])
    try:
        yield this
    finally:
        server.close()
        for task in this.talking:
            task.cancel()
        await asyncio.gather(*this.talking, return_exceptions=True)
