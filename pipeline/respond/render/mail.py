"""A plain mail: subject, text, and the ids that put what belongs together into one thread.

What goes out over SMTP is made of this by `message` at each attempt, when sender and recipients are put in. A header
can't be broken out of: what becomes one is one line of printable text, and the mail's own policy refuses the rest;
the text is base64, so no line of it is a command, a dot or too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

import msgspec

from pipeline.respond.brief import lines
from pipeline.respond.delivery.notice import Notice, one_line
from pipeline.times import micros

MAX_SUBJECT: Final = 150
DOMAIN: Final = "keywatch.invalid"


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """As it waits to be sent."""

    subject: str
    text: str
    message_id: str
    thread: str
    at: str


def body(notice: Notice) -> bytes:
    """The mail as JSON; `message` makes it one that can be sent."""
    return msgspec.json.encode(mail(notice))


def mail(notice: Notice) -> Mail:
    """What people read."""
    told = lines(notice.brief) if notice.brief else (("What", notice.text),)
    parts = [f"{label}: {one_line(text, 2000)}" for label, text in told]
    if notice.case:
        keys = ", ".join(one_line(key) for key in notice.case.keys)
        parts += [f"Case: {notice.case.case_id} ({notice.case.state}; {notice.case.step})", f"Keys: {keys}"]
    if notice.brief:
        parts.append(f"More: {notice.brief.look}")
    if notice.link:
        parts.append(f"{notice.link_words[0].upper()}{notice.link_words[1:]}: {one_line(notice.link, 2000)}")
    return Mail(
        subject=one_line(f"[Keywatch] {notice.title}", MAX_SUBJECT), text="\n\n".join(parts) + "\n",
        message_id=one_line(notice.message_id), thread=one_line(notice.subject), at=notice.at,
    )  # fmt: skip


def message(waiting: Mail, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The mail for SMTP. Raises ValueError for an address that can't be one."""
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"] = sender, ", ".join(recipients)
    made["Subject"] = waiting.subject
    made["Date"] = format_datetime(_moment(waiting.at))
    made["Message-ID"] = f"<{_token(waiting.message_id)}@{DOMAIN}>"
    made["References"] = f"<{_token(waiting.thread)}@{DOMAIN}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(waiting.text, cte="base64")
    return made


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(micros(text) / 1e6, UTC)


def _token(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in text)[:100] or "none"
