"""Alertmanager's API v2: an array of alerts for `POST /api/v2/alerts`.

Labels are an alert's identity, so only what never changes is one; but people route by severity, so an incident that
rises is a new alert, and the message that raises it ends the alerts of the lower grades; what is over ends all of them.
An open alert says itself until when it holds (`endsAt`, 7 days: no incident is open longer), so nothing must be sent
again and again.
Source: prometheus/alertmanager api/v2/openapi.yaml.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from pipeline.config.night import ACTS
from pipeline.respond.brief import lines
from pipeline.respond.delivery.notice import Grade, Notice

HOLDS: Final = timedelta(days=7)
GRADES: Final[tuple[Grade, ...]] = ("info", "medium", "high", "critical")
NAMES: Final = {"incident": "KeywatchIncident", "case": "KeywatchCase", "protection": "KeywatchUnprotected"}
ACT: Final = "KeywatchAct"


def body(notice: Notice) -> bytes:
    """The array's bytes."""
    return msgspec.json.encode(alerts(notice))


def alerts(notice: Notice) -> list[dict[str, Any]]:
    """The alert of this grade, and the ends of those of lower grades (of all, where it is over)."""
    over = notice.action == "resolve"
    rank = GRADES.index(notice.severity)
    ended = [_alert(notice, grade, notice.at) for grade in (GRADES if over else GRADES[:rank])]
    if over:
        return ended
    until = (_moment(notice.at) + HOLDS).isoformat()
    return [_alert(notice, notice.severity, until), *ended]


def _alert(notice: Notice, grade: Grade, ends_at: str) -> dict[str, Any]:
    incident = notice.incident
    labels = {
        "alertname": ACT if notice.event in ACTS else NAMES.get(notice.event.partition(".")[0], "KeywatchHealth"),
        "subject": notice.subject,
        "severity": grade,
    }
    if incident:
        labels |= {"key_id": incident.key_id, "rule": incident.rule, "environment": incident.environment}
    told = dict(lines(notice.brief)) if notice.brief else {}
    annotations = {name.lower().replace(" ", "_"): text for name, text in told.items()}
    annotations |= {"summary": notice.title, "description": notice.text}
    if notice.case_id:
        annotations["case"] = notice.case_id
    alert: dict[str, Any] = {
        "labels": {name: text for name, text in labels.items() if text},
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": min(_moment(notice.opened_at or notice.at), _moment(ends_at)).isoformat(),
        "endsAt": _moment(ends_at).isoformat(),
    }
    return alert | ({"generatorURL": notice.link} if notice.link else {})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
