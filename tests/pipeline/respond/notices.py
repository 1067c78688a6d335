"""Notices of every event, for tests of renderings and channels."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.config.night import EVENTS
from pipeline.respond.brief import Known, Usage, brief
from pipeline.respond.delivery.notice import Action, CaseView, Notice, of_incident
from schemas.incident import Incident, Sample
from tests.pipeline.respond.incidents import at, finding, incident, key

NASTY = 'k1 <!channel> *odd*\r\nBcc: all@example.com\u2028 `rm -rf` </b> \x1b[31m & "more"'
"""What a caller of the API may have put into a path or an agent, as far as it can get."""

ACTIONS: dict[str, Action] = {"closed": "resolve", "restored": "resolve", "acknowledged": "acknowledge"}
USAGE = Usage(
    clients=14, per_minute=220.4, usual_requests=31, touched=("GET /v1/users/{id}",), requests=412, bytes_out=3_400_000
)


def full(**changes: Any) -> Incident:
    """An incident with a sample that has everything."""
    sample = Sample(
        at=at(5), request_id="r1", method="GET", route="/v1/users/{id}", status=200, outcome="success",
        client_ip="198.51.100.9", country="RO", asn=64500, network="Example Hosting", client="curl",
    )  # fmt: skip
    found = msgspec.structs.replace(finding("network"), sample=sample)
    values: dict[str, Any] = {"findings": (found, finding("volume", 9.0)), "owner": "billing", "events": 412}
    return incident(**(values | changes))


def notice(event: str = "incident.opened", **changes: Any) -> Notice:
    """One notice of this event, with a brief; of cases with a case."""
    topic, _, change = event.partition(".")
    if topic == "incident":
        about = full(**({"change": change, "state": "closed" if change == "closed" else "open"} | changes))
        return of_incident(
            about, brief(about, key(owner="billing"), Known(usage=USAGE)), "case-1", "https://console.example/i"
        )
    about = full(**changes)
    view = CaseView(case_id="case-1", state="open", incidents=2, keys=("k1", "k2"), step="opened")
    return Notice(
        message_id=f"msg_{topic}_1", event=event, subject="case-1" if topic == "case" else topic,
        action=ACTIONS.get(change, "trigger"), severity="critical", at=at(5), opened_at=at(60),
        title=f"{event}: {about.text}", text=about.text,
        brief=brief(about, key(), Known(usage=USAGE)) if topic == "case" else None,
        incident=about if topic == "case" else None, case=view if topic == "case" else None,
    )  # fmt: skip


ALL: tuple[str, ...] = tuple(sorted(EVENTS))
