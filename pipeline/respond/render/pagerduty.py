"""PagerDuty Events API v2: trigger, acknowledge, resolve under one `dedup_key`, the case's id.

`routing_key` is not in it: it is a secret, and the channel puts it in at each attempt. Limits by PagerDuty: summary
1024 characters, dedup_key 255, the whole event 512 kB. Source: developer.pagerduty.com, Send an Alert Event.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.respond.brief import lines
from pipeline.respond.delivery.notice import Grade, Notice, one_line

DONE: Final = "response.done"
MAX_SUMMARY: Final = 1024
MAX_DEDUP: Final = 255
SEVERITY: Final[dict[Grade, str]] = {"critical": "critical", "high": "error", "medium": "warning", "info": "info"}


def body(notice: Notice) -> bytes:
    """The event's bytes, without the routing key."""
    return msgspec.json.encode(event(notice))


def event(notice: Notice) -> dict[str, Any]:
    """The event, without the routing key. Acknowledging and resolving need no payload."""
    action = "resolve" if notice.event == DONE and not notice.case_id else notice.action  # that calls nobody
    told: dict[str, Any] = {
        "event_action": action,
        "dedup_key": _thread(notice)[:MAX_DEDUP],
        "client": "Keywatch",
    }
    if notice.link:
        told |= {"client_url": notice.link, "links": [{"href": notice.link, "text": notice.link_words}]}
    if action == "trigger":
        told["payload"] = {
            "summary": one_line(notice.title, MAX_SUMMARY),
            "source": notice.incident.key_id if notice.incident else "keywatch",
            "severity": SEVERITY[notice.severity],
            "timestamp": notice.at,
            "component": "keywatch",
            "group": (notice.incident.owner if notice.incident else "") or "keywatch",
            "class": notice.event,
            "custom_details": details(notice),
        }
    return told


def _thread(notice: Notice) -> str:
    """What was done by itself is a line of its case's alert: one case is one page."""
    return (notice.case_id if notice.event == DONE else "") or notice.subject


def details(notice: Notice) -> dict[str, str]:
    """The first screen, by its labels."""
    told = dict(lines(notice.brief)) if notice.brief else {"What": notice.text}
    if notice.case:
        told |= {"Case": notice.case.case_id, "Keys": ", ".join(notice.case.keys), "Why now": notice.case.step}
    return told
