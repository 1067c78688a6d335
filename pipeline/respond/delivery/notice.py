"""One thing to tell, whatever the channel: what `render/` makes requests and mails of."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import msgspec

from pipeline.respond.brief import Brief
from schemas.incident import Incident, webhook_id

Action = Literal["trigger", "acknowledge", "resolve"]
Grade = Literal["info", "medium", "high", "critical"]


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case as messages show it."""

    case_id: str
    state: str  # open | acknowledged | snoozed | closed
    incidents: int
    keys: tuple[str, ...]
    owners: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    assignee: str = ""
    step: str = ""  # why it is told now


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """`message_id` is the same at every attempt; what has one `subject` comes in order, and is one alert elsewhere."""

    message_id: str
    event: str  # incident.opened ... of pipeline/config/night.py
    subject: str  # incident id, case id, "protection", ...
    action: Action
    severity: Grade
    at: str  # RFC 3339
    title: str  # one line
    text: str
    opened_at: str = ""
    brief: Brief | None = None
    incident: Incident | None = None
    case: CaseView | None = None
    case_id: str = ""  # of an incident that belongs to one
    link: str = ""
    about: dict[str, str] = {}  # of what is no incident and no case: the ids it is about

    @property
    def link_words(self) -> str:
        """What the page behind `link` is for."""
        stands = self.brief is not None and any(each.undo for each in self.brief.standing)
        return "the incident: what stands is undone there" if stands else "the incident"


def of_incident(incident: Incident, told: Brief | None = None, case_id: str = "", link: str = "") -> Notice:
    """The message of one revision of an incident."""
    closed = incident.state == "closed"
    return Notice(
        message_id=webhook_id(incident.incident_id, incident.revision), event=f"incident.{incident.change}",
        subject=incident.incident_id, action="resolve" if closed else "trigger", severity=incident.severity,
        at=incident.closed_at or incident.last_at, opened_at=incident.opened_at,
        title=one_line(f"{incident.severity}: {_about(incident)}"), text=_text(incident), brief=told,
        incident=incident, case_id=case_id, link=link,
    )  # fmt: skip


def _about(incident: Incident) -> str:
    """With the key's name once: its text mostly begins with it, and a title has little room."""
    named = incident.text.startswith(f"{incident.key_id}:")
    return incident.text if named else f"{incident.key_id}: {incident.text}"


def _text(incident: Incident) -> str:
    """What it says; a revision that lets its way be learned says that too, or its second closing would say nothing."""
    unreviewed = incident.adopted and not incident.label
    return f"{incident.text}; adopted unreviewed: what goes on is learned now" if unreviewed else incident.text


def link_to(page: str, incident_id: str, key_id: str) -> str:
    """The page of an incident, where acts are approved and undone: `page` with what it names put in; "" is none."""
    return page.replace("{incident_id}", quote(incident_id)).replace("{key_id}", quote(key_id, safe=""))


def data(notice: Notice) -> dict[str, Any]:
    """What machines get of it: the incident's own fields where it is about one, and the brief beside them."""
    told: dict[str, Any] = msgspec.to_builtins(notice.incident) if notice.incident and not notice.case else {}
    if not told:
        told = {
            "title": notice.title, "text": notice.text, "severity": notice.severity, "subject": notice.subject,
            "action": notice.action, **notice.about,
        }  # fmt: skip
        if notice.incident:
            told |= {"incident_id": notice.incident.incident_id, "key_id": notice.incident.key_id}
    if notice.brief:
        told["brief"] = msgspec.to_builtins(notice.brief)
    if notice.case:
        told["case"] = msgspec.to_builtins(notice.case)
    if notice.case_id:
        told["case_id"] = notice.case_id
    if notice.link:
        told["link"] = notice.link
    return told


def one_line(text: str, most: int = 200) -> str:
    """Without control characters and line ends (also Unicode's), cut at `most` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= most else clean[: most - 1] + "…"
