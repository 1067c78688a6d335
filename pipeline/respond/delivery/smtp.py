"""One attempt to hand one mail to a mail server: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, over a judged address.

Written on asyncio's streams rather than on smtplib because the connection must go to the very address that was judged
while the certificate is checked against the name, and because the whole dialogue must end in time: smtplib's time-out
is per read, so a server that drips a byte now and then holds its thread for ever.
 - Without TLS nothing is said but to a target that `allow_private` allows; a login never goes out in the clear.
 - What the server sends after its yes to STARTTLS and before the handshake would be read as if it had come inside:
   such a server is left (CVE-2011-0411).
 - An answer is at most 100 lines of 2 KB. 4xx is to be tried again, 5xx is a failure; nothing of it is shown.
Source: RFC 5321, RFC 3207, RFC 4954.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from pipeline.respond.delivery.address import AddressError, LookUp, checked, system_look_up
from pipeline.respond.delivery.caller import Answer

MAX_LINE: Final = 2048
MAX_LINES: Final = 100
CLOSE_S: Final = 1.0
_REPLY: Final = re.compile(rb"(\d{3})([ -])(.*)")
SMTP_OK: Final = 200
"""What stands in an `Answer` for a mail that was taken: the channels' common word for it."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail goes. `username` "" is no login."""

    host: str
    port: int
    tls_first: bool
    allow_private: bool
    username: str = ""
    password: str = ""
    connect_s: float = 3.0
    total_s: float = 15.0
    look_up: LookUp = system_look_up
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port})"


class Refused(Exception):
    """The server said no, with this code; 0 is no SMTP at all."""

    def __init__(self, code: int, at: str) -> None:
        super().__init__(f"answered {code} to {at}" if code else f"speaks no SMTP at {at}")
        self.code = code


async def send(server: Server, mail: EmailMessage, sender: str, recipients: tuple[str, ...]) -> Answer:
    """One attempt. Never raises for anything that the other side does."""
    try:
        async with asyncio.timeout(server.total_s):
            return await _attempt(server, mail, sender, recipients)
    except TimeoutError:
        return Answer(error="gave no answer in time")
    except AddressError as error:
        return Answer(error=str(error), refused_address=True)
    except Refused as error:
        return Answer(error=str(error))
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return Answer(error=f"could not be reached ({type(error).__name__})")


async def _attempt(server: Server, mail: EmailMessage, sender: str, recipients: tuple[str, ...]) -> Answer:
    addresses = await checked(server.host, server.port, server.allow_private, server.look_up)
    talk = await _connect(server, addresses)
    try:
        await talk.greet()
        if not server.tls_first:
            await _secure(server, talk)
        await _log_in(server, talk)
        await talk.say(f"MAIL FROM:<{sender}>", 250, "MAIL")
        for each in recipients:
            await talk.say(f"RCPT TO:<{each}>", 250, "RCPT")
        await talk.say("DATA", 354, "DATA")
        await talk.send(mail.as_bytes() + b".\r\n", 250)  # base64 lines: none begins with a dot
        talk.quit()
    finally:
        await talk.close()
    return Answer(status=SMTP_OK)


async def _connect(server: Server, addresses: list[str]) -> Talk:
    tls = _context(server) if server.tls_first else None
    error: OSError = OSError("no address")
    for address in addresses:
        try:
            async with asyncio.timeout(server.connect_s):
                reader, writer = await asyncio.open_connection(
                    address, server.port, limit=MAX_LINE, ssl=tls, server_hostname=server.host if tls else None
                )
        except OSError as failed:  # TimeoutError is one
            error = failed
        else:
            return Talk(reader, writer, encrypted=server.tls_first)
    raise error


async def _secure(server: Server, talk: Talk) -> None:
    if "STARTTLS" not in talk.can:
        if not server.allow_private or server.username:
            raise Refused(0, "STARTTLS, and nothing is said in the clear")
        return
    await talk.say("STARTTLS", 220, "STARTTLS")
    await talk.upgrade(_context(server), server.host)
    await talk.hello()


async def _log_in(server: Server, talk: Talk) -> None:
    if not server.username:
        return
    if not talk.encrypted:
        raise Refused(0, "AUTH, and a password never goes out in the clear")
    login = base64.b64encode(f"\0{server.username}\0{server.password}".encode()).decode()
    await talk.say(f"AUTH PLAIN {login}", 235, "AUTH")


def _context(server: Server) -> ssl.SSLContext:
    return server.tls or ssl.create_default_context()


class Talk:
    """The dialogue over one connection; `can` is what the server said it can do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool) -> None:
        self._reader, self._writer, self.encrypted = reader, writer, encrypted
        self.can: frozenset[str] = frozenset()

    async def greet(self) -> None:
        """Hear the server's first word, and say ours."""
        await self._expect(220, "the greeting")
        await self.hello()

    async def hello(self) -> None:
        """EHLO; what was known before TLS is forgotten."""
        lines = await self.say("EHLO keywatch.invalid", 250, "EHLO")
        self.can = frozenset(line.split()[0].upper() for line in lines[1:] if line.split())

    async def say(self, line: str, expected: int, at: str) -> list[str]:
        """One command and its answer. Raises `Refused`, ValueError for what would be two commands."""
        if not line.isprintable():
            raise ValueError("a command is one line")
        return await self.send(line.encode("ascii") + b"\r\n", expected, at)

    async def send(self, raw: bytes, expected: int, at: str = "the mail") -> list[str]:
        """These bytes and the answer to them. Raises `Refused`."""
        self._writer.write(raw)
        await self._writer.drain()
        return await self._expect(expected, at)

    async def upgrade(self, context: ssl.SSLContext, host: str) -> None:
        """TLS from here on. Raises `Refused` for a server that has said more than yes already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                if await self._reader.read(1):
                    raise Refused(0, "STARTTLS")
        await self._writer.start_tls(context, server_hostname=host)
        self.encrypted = True

    async def _expect(self, expected: int, at: str) -> list[str]:
        lines: list[str] = []
        while len(lines) < MAX_LINES:
            found = _REPLY.fullmatch((await self._reader.readuntil(b"\n")).rstrip(b"\r\n"))
            if found is None:
                raise Refused(0, at)
            lines.append(found[3].decode("ascii", "replace"))
            if found[2] == b" ":
                if int(found[1]) != expected:
                    raise Refused(int(found[1]), at)
                return lines
        raise Refused(0, at)

    def quit(self) -> None:
        """The mail is theirs already: whether they say goodbye is of no matter."""
        self._writer.write(b"QUIT\r\n")

    async def close(self) -> None:
        """Hang up; who doesn't let us go in a second is left."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()
