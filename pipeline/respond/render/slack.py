"""Slack's incoming webhook: `text` for the notification, `blocks` for the screen.

What a caller of the API chose can't become a mention, a link or a format: `&`, `<` and `>` are escaped as Slack asks
for, and what makes bold, code or strikes is taken out of texts. Limits: header 150 characters, text of a section 3000,
50 blocks. Source: api.slack.com, Formatting text for app surfaces; Block Kit reference.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.respond.brief import lines
from pipeline.respond.delivery.notice import Notice, one_line

MAX_HEADER: Final = 150
MAX_SECTION: Final = 3000
COMMANDS: Final = frozenset({"Do", "Undo"})
MARK: Final = {"critical": ":rotating_light:", "high": ":warning:", "medium": ":eyes:", "info": ":information_source:"}
_FORMATS: Final = str.maketrans({"*": "\u2217", "~": "\u223c", "`": "'", "\u202e": " "})


def body(notice: Notice) -> bytes:
    """The message's bytes."""
    return msgspec.json.encode(message(notice))


def message(notice: Notice) -> dict[str, Any]:
    """Text and blocks."""
    title = one_line(notice.title, MAX_HEADER)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}]
    told = lines(notice.brief) if notice.brief else (("What", notice.text),)
    blocks += [_section(label, text) for label, text in told]
    if notice.case:
        keys = ", ".join(notice.case.keys)
        blocks.append(_section("Case", f"{notice.case.case_id} ({notice.case.step}), keys: {keys}"))
    if notice.link:
        blocks.append(_plain(f"<{escaped(notice.link)}|{escaped(notice.link_words)}>"))
    return {"text": f"{MARK[notice.severity]} {plain(notice.title)}"[:MAX_SECTION], "blocks": blocks}


def escaped(text: str) -> str:
    """Without anything that Slack reads as a link, a mention or a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(text: str) -> str:
    """Escaped, and without formats."""
    return escaped(one_line(text, MAX_SECTION // 2).translate(_FORMATS))


def _section(label: str, text: str) -> dict[str, Any]:
    if label in COMMANDS:  # to be copied as it is: between back quotes nothing but these is a format
        return _plain(f"*{label}:* `{escaped(one_line(text, MAX_SECTION // 2).replace('`', ' '))}`")
    return _plain(f"*{label}:* {plain(text)}")


def _plain(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_SECTION], "verbatim": True}}
