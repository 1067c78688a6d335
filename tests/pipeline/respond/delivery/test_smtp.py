"""Mail goes to the judged address under the name's certificate, never in the clear, and a bad server is an answer."""

from __future__ import annotations

import email
import email.policy
import ssl
from typing import Any

import pytest

from pipeline.config.tree import Secret
from pipeline.errors import ConfigError
from pipeline.respond.delivery import smtp
from pipeline.respond.delivery.address import AddressError, check_smtp
from pipeline.respond.delivery.channel import channel
from pipeline.respond.render import mail
from tests.pipeline.respond.channels import respond
from tests.pipeline.respond.incidents import endpoint
from tests.pipeline.respond.mail_server import HOST, MailServer, contexts, mail_server
from tests.pipeline.respond.notices import notice

SENDER, RECIPIENTS = "keywatch@example.com", ("night@example.com", "second@example.com")


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def server(this: MailServer, tls: ssl.SSLContext | None = None, **changes: Any) -> smtp.Server:
    values: dict[str, Any] = {"username": "kw", "password": "hunter2-hunter2", "total_s": 5.0, "look_up": to_loopback}
    return smtp.Server(HOST, this.port, changes.pop("tls_first", False), True, tls=tls, **(values | changes))


async def send(where: smtp.Server) -> Any:
    return await smtp.send(
        where, mail.message(mail.mail(notice("case.opened")), SENDER, RECIPIENTS), SENDER, RECIPIENTS
    )


async def test_a_mail_goes_out_over_starttls_with_the_login_inside() -> None:
    theirs, ours = contexts()
    async with mail_server(MailServer(tls=theirs)) as this:
        assert (await send(server(this, ours))).ok
    assert this.logins == [("\0kw\0hunter2-hunter2", True)]
    assert this.log[:3] == ["EHLO keywatch.invalid", "STARTTLS", "EHLO keywatch.invalid"]
    assert [line for line in this.log if line.startswith("RCPT")] == [f"RCPT TO:<{each}>" for each in RECIPIENTS]
    read = email.message_from_bytes(this.mails[0], policy=email.policy.default)
    assert "Safest act: fence" in read.get_content()


async def test_a_mail_goes_out_over_tls_from_the_first_byte() -> None:
    theirs, ours = contexts()
    async with mail_server(MailServer(), first=theirs) as this:
        assert (await send(server(this, ours, tls_first=True))).ok
    assert len(this.mails) == 1
    assert "STARTTLS" not in this.log


async def test_a_certificate_of_another_name_gets_no_mail_and_no_password() -> None:
    theirs, ours = contexts("other.example.com")
    async with mail_server(MailServer(tls=theirs)) as this:
        answer = await send(server(this, ours))
    assert answer.words == "could not be reached (SSLCertVerificationError)"
    assert this.logins == [] and this.mails == []


async def test_a_password_never_goes_out_in_the_clear() -> None:
    async with mail_server(MailServer(can=("AUTH PLAIN",))) as this:
        answer = await send(server(this))
    assert "in the clear" in answer.words
    assert this.log == ["EHLO keywatch.invalid"]


async def test_without_a_login_your_own_network_may_do_without_tls_and_nobody_else() -> None:
    async with mail_server(MailServer(can=())) as this:
        assert (await send(server(this, username="", password=""))).ok
        public = smtp.Server(HOST, this.port, False, False, total_s=5, look_up=to_loopback)
        assert (await send(public)).refused_address
    assert len(this.mails) == 1


async def test_what_comes_between_the_yes_and_the_handshake_is_not_believed() -> None:
    theirs, ours = contexts()
    answers: dict[str, bytes | None] = {"STARTTLS": b"220 go on\r\n250-injected\r\n"}
    async with mail_server(MailServer(tls=theirs, answers=answers)) as this:
        answer = await send(server(this, ours))
    assert not answer.ok
    assert this.logins == []


@pytest.mark.parametrize(
    ("at", "said", "words"),
    [
        ("GREETING", b"554 no\r\n", "answered 554 to the greeting"),
        ("GREETING", b"HTTP/1.1 200 OK\r\n", "speaks no SMTP"),
        ("GREETING", b"220-x\r\n" * 500, "speaks no SMTP"),
        ("GREETING", b"220 " + b"x" * 100_000, "could not be reached"),
        ("GREETING", None, "gave no answer in time"),
        ("AUTH", b"535 wrong hunter2-hunter2\r\n", "answered 535 to AUTH"),
        ("RCPT", b"550 nobody\r\n", "answered 550 to RCPT"),
        ("DATA", b"452 full\r\n", "answered 452 to DATA"),
        ("END", b"554 spam\r\n", "answered 554 to the mail"),
        ("END", None, "gave no answer in time"),
    ],
)
async def test_whatever_a_server_does_is_an_answer_in_words_without_its_own(
    at: str, said: bytes | None, words: str
) -> None:
    theirs, ours = contexts()
    async with mail_server(MailServer(tls=theirs, answers={at: said})) as this:
        answer = await send(server(this, ours, total_s=1.0 if said is None else 5.0))
    assert not answer.ok
    assert words in answer.words
    assert "hunter2" not in answer.words


async def test_a_name_that_resolves_inside_gets_no_connection_and_is_judged_again_each_time() -> None:
    asked = []

    async def inside(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.0.0.1"] if len(asked) > 1 else ["8.8.8.8", "127.0.0.1"]

    for _ in range(2):
        answer = await send(smtp.Server(HOST, 587, False, False, look_up=inside, total_s=2))
        assert answer.refused_address
    assert asked == [HOST, HOST]


@pytest.mark.parametrize(
    "url",
    [
        "https://mail.example.com", "smtp://u:p@mail.example.com", "smtp://10.0.0.1:25", "smtp://mail.example.com:22",
        "smtp://127.1:587", "smtp://:25", "smtp://mail.example.com:99999", "smtp://mail.example.com/x",
    ],
)  # fmt: skip
def test_only_names_and_mail_s_own_ports_may_be_called(url: str) -> None:
    with pytest.raises(AddressError):
        check_smtp(url, allow_private=False)


def test_ports_follow_from_the_scheme() -> None:
    assert check_smtp("smtp://mail.example.com", False) == ("mail.example.com", 587, False)
    assert check_smtp("smtps://mail.example.com", False) == ("mail.example.com", 465, True)


@pytest.mark.parametrize(
    "address", ["a@b\r\nBcc: c@d", "A <a@b.example>", "a@b, c@d", "", "nobody", "ü@example.com", "a b@example.com"]
)
def test_an_address_that_holds_more_than_an_address_is_refused_at_the_start(address: str) -> None:
    values: dict[str, Any] = {"kind": "email", "sender": SENDER, "recipients": (address,), "secret": Secret("pw")}
    with pytest.raises(ConfigError, match="bare mail address"):
        channel(respond(), endpoint("smtp://127.0.0.1:25", **values))


async def test_the_channel_renders_and_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_server(MailServer(can=())) as this:
        values: dict[str, Any] = {"kind": "email", "sender": SENDER, "recipients": RECIPIENTS, "secret": Secret("")}
        post = channel(respond(), endpoint(f"smtp://127.0.0.1:{this.port}", **values))
        assert (await post.post("m1", mail.body(notice("case.opened")))).ok
    assert b"Subject: [Keywatch]" in this.mails[0]
