"""CloudEvents 1.0, structured mode: the event's attributes and its data in one JSON object.

Source: cloudevents/spec v1.0.2, cloudevents/formats/json-format.md. `id` is the message's id, the same at every
attempt, so (source, id) is unique as the specification asks for.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.respond.delivery.notice import Notice
from pipeline.respond.render.standard import fitting

CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
SOURCE: Final = "/keywatch"
SCHEMA: Final = "urn:keywatch:incident:v1"


def body(notice: Notice) -> bytes:
    """The event's bytes."""
    return fitting(notice, lambda told: event(notice, told))


def event(notice: Notice, told: dict[str, Any]) -> dict[str, Any]:
    """`told` becomes its data."""
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": notice.message_id,
        "source": SOURCE,
        "type": f"keywatch.{notice.event}.v1",
        "subject": notice.incident.key_id if notice.incident else notice.subject,
        "time": notice.at,
        "datacontenttype": "application/json",
    }
    if notice.incident and not notice.case:
        attributes["dataschema"] = SCHEMA
    return {**attributes, "data": told}
