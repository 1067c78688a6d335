"""Standard Webhooks 1.0.0: {"type", "timestamp", "data"}; signed by the channel at each attempt.

`data` of an incident is the incident itself with the `brief` beside its fields. A message stays below 20,000 bytes:
samples of the weakest findings go first, then the findings, told in `trimmed`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.respond.delivery.notice import Notice, data, of_incident
from schemas.incident import Incident

MAX_BODY_BYTES: Final = 20_000


def body(notice: Notice) -> bytes:
    """The message's bytes; these very ones are signed."""
    return fitting(notice, lambda told: {"type": notice.event, "timestamp": notice.at, "data": told})


def incident_body(incident: Incident) -> bytes:
    """An incident without anything known beside it."""
    return body(of_incident(incident))


def fitting(notice: Notice, envelope: Any) -> bytes:
    """What `envelope` makes of the notice's data, as JSON below the limit."""
    told = data(notice)
    findings = sorted(told.get("findings", ()), key=lambda finding: -float(finding["bits"]))
    total = len(findings)
    rendered = msgspec.json.encode(envelope(told))
    for finding in reversed(findings):
        if len(rendered) < MAX_BODY_BYTES:
            return rendered
        finding.pop("sample", None)
        told["trimmed"] = "samples"
        rendered = msgspec.json.encode(envelope(told))
    while len(rendered) >= MAX_BODY_BYTES and findings:
        findings.pop()
        told |= {"findings": findings, "trimmed": f"{total - len(findings)} findings and all samples"}
        rendered = msgspec.json.encode(envelope(told))
    return rendered
