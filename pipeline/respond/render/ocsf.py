"""OCSF 1.6.0, Detection Finding (class 2004): what an SIEM reads.

1.6.0 is pinned: 1.7 changes `metadata.uid`, 1.9 deprecates fields used here. Times in ms. The evidence is told twice,
as `evidences` (the sample requests) and as `anomaly_analyses` (what was observed against what is usual).
Source: ocsf/ocsf-schema at v1.6.0, events/findings/detection_finding.json; a test validates against it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.respond.brief import lines
from pipeline.respond.delivery.notice import Grade, Notice
from pipeline.times import micros
from schemas.incident import PROOF_RULES, Finding, Incident, Sample

VERSION: Final = "1.6.0"
CLASS_UID: Final = 2004
CREATE, UPDATE, CLOSE = 1, 2, 3
NEW, IN_PROGRESS, RESOLVED = 1, 2, 4
STATISTICAL, RULE = 3, 1
SEVERITY: Final[dict[Grade, int]] = {"info": 1, "medium": 3, "high": 4, "critical": 5}
ACTIVITY: Final = dict.fromkeys(("opened", "lost", "disabled", "failed", "done", "waiting"), CREATE)
MOST: Final = 20  # findings; the strongest first


def body(notice: Notice) -> bytes:
    """The finding's bytes."""
    return msgspec.json.encode(finding(notice))


def finding(notice: Notice) -> dict[str, Any]:
    """The finding as the schema names it."""
    closed = notice.action == "resolve"
    activity = CLOSE if closed else ACTIVITY.get(notice.event.partition(".")[2], UPDATE)
    status = RESOLVED if closed else IN_PROGRESS if notice.action == "acknowledge" else NEW
    told: dict[str, Any] = {
        "category_uid": 2, "class_uid": CLASS_UID, "activity_id": activity, "type_uid": CLASS_UID * 100 + activity,
        "severity_id": SEVERITY[notice.severity], "status_id": status, "time": _ms(notice.at), "is_alert": not closed,
        "message": notice.title, "metadata": _metadata(notice), "finding_info": _finding_info(notice),
    }  # fmt: skip
    if notice.brief:
        told["remediation"] = {"desc": "\n".join(f"{label}: {text}" for label, text in lines(notice.brief))}
    if notice.incident:
        told |= _of_incident(notice.incident)
    return told


def _metadata(notice: Notice) -> dict[str, Any]:
    return {
        "version": VERSION,
        "product": {"name": "Keywatch", "vendor_name": "Keywatch", "feature": {"name": notice.event}},
        "uid": notice.message_id,
        "labels": [f"case:{notice.case_id}"] if notice.case_id else [],
    }


def _finding_info(notice: Notice) -> dict[str, Any]:
    incident = notice.incident
    told: dict[str, Any] = {"uid": notice.subject, "title": notice.title, "desc": notice.text, "types": [notice.event]}
    if notice.link:
        told["src_url"] = notice.link
    if incident:
        kind = RULE if incident.rule in PROOF_RULES else STATISTICAL
        told |= {
            "analytic": {"name": incident.rule, "type_id": kind, "uid": f"keywatch.{incident.rule}"},
            "first_seen_time": _ms(incident.opened_at), "last_seen_time": _ms(incident.last_at),
            "related_events_count": incident.events,
        }  # fmt: skip
    return told


def _of_incident(incident: Incident) -> dict[str, Any]:
    strongest = sorted(incident.findings, key=lambda each: -each.bits)[:MOST]
    resource: dict[str, Any] = {"uid": incident.key_id, "name": incident.key_id, "type": "API key"}
    if incident.owner:
        resource["owner"] = {"name": incident.owner}
    if incident.environment:
        resource["namespace"] = incident.environment
    told: dict[str, Any] = {"resources": [resource]}
    if strongest:
        told["evidences"] = [_evidence(each) for each in strongest]
        told["anomaly_analyses"] = [_analysis(incident, each) for each in strongest]
    return told


def _evidence(found: Finding) -> dict[str, Any]:
    sample = found.sample
    told: dict[str, Any] = {"name": found.text, "data": {"detector": found.detector, "bits": found.bits}}
    if sample.route:
        operation = f"{sample.method} {sample.route}".strip()
        told["api"] = {"operation": operation, "response": {"code": sample.status}}
    if sample.client_ip:
        told["src_endpoint"] = _endpoint(sample)
    return told


def _endpoint(sample: Sample) -> dict[str, Any]:
    told: dict[str, Any] = {"ip": sample.client_ip}
    if sample.asn:
        told["autonomous_system"] = {"number": sample.asn, "name": sample.network or f"AS{sample.asn}"}
    if sample.country:
        told["location"] = {"country": sample.country}
    return told


def _analysis(incident: Incident, found: Finding) -> dict[str, Any]:
    usual = [("low", found.expected.low), ("median", found.expected.median), ("high", found.expected.high)]
    return {
        "analysis_targets": [{"name": incident.key_id, "type": "API key"}],
        "anomalies": [{
            "observation_parameter": found.detector, "observation_type": found.unit, "observed_pattern": found.text,
            "observations": [{"value": f"{found.observed:g}", "count": 1}],
        }],
        "baselines": [{
            "observation_parameter": f"{found.detector} {name}", "observation_type": found.unit,
            "observations": [{"value": f"{value:g}"}],
        } for name, value in usual],
    }  # fmt: skip


def _ms(text: str) -> int:
    return micros(text) // 1000
