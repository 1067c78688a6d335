"""Incidents, findings and policies for tests; times relative to `NOW_S`."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from pipeline.config.tree import Endpoint, Revocation, Secret
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key

NOW_S = 1_795_000_000.0
SECRET = "whsec_" + base64.b64encode(b"a secret of 32 bytes for testing").decode()


def at(ago_s: float = 0.0) -> str:
    """RFC 3339, so many seconds before `NOW_S`."""
    return datetime.fromtimestamp(NOW_S - ago_s, UTC).isoformat()


def finding(
    family: str, bits: float = 20.0, ago_s: float = 5.0, authenticated: bool = True, detector: str = ""
) -> Finding:
    """One finding of a family."""
    return Finding(
        detector=detector or family, family=family, bits=bits, at=at(ago_s), observed=412.0,
        expected=Band(low=3, median=9, high=21), unit="requests", text=f"odd {family}", authenticated=authenticated,
        sample=Sample(at=at(ago_s), request_id="r1", route="/v1/users/{id}"),
    )  # fmt: skip


def incident(key_id: str = "k1", revision: int = 1, **changes: Any) -> Incident:
    """An incident that every guard lets pass, but for the changes."""
    values: dict[str, Any] = {
        "incident_id": f"incident-{key_id}", "key_id": key_id, "rule": "visit", "revision": revision,
        "change": "opened" if revision == 1 else "extended", "state": "open", "severity": "critical", "rung": "revoke",
        "opened_at": at(60), "last_at": at(5), "bits": 40.0, "text": f"{key_id} is odd",
        "findings": (finding("network"), finding("volume")), "environment": "live", "key_version": 1,
    }  # fmt: skip
    return Incident(**(values | changes))


def policy(**changes: Any) -> Revocation:
    """An enforcing policy with a wide cap by share, but for the changes."""
    values: dict[str, Any] = {"mode": "enforce", "endpoint": "keys", "max_share_of_active": 0.5}
    return Revocation(**(values | changes))


def key(key_id: str = "k1", **changes: Any) -> Key:
    """A declared live key, version 1."""
    values: dict[str, Any] = {"key_id": key_id, "environment": "live", "version": 1}
    return Key(**(values | changes))


def endpoint(url: str, name: str = "keys", **changes: Any) -> Endpoint:
    """An endpoint on loopback."""
    values: dict[str, Any] = {"name": name, "url": url, "secret": Secret(SECRET), "allow_private": True}
    return Endpoint(**(values | changes))
