"""Envoy, Istio, Envoy Gateway: the JSON access log, by the default names of Istio and of Envoy Gateway.

There is no id of a key by default: log one that the filter which checked the key has set, e.g. `"key_id":
"%DYNAMIC_METADATA(...)%"` or a request header that Envoy itself overwrites; a header that callers may send is no
proof of anything. `intake.key_field` names another field. `downstream_remote_address` is the peer's where the listener
has `use_remote_address`, as one that faces callers must; without that, or with `xff_num_trusted_hops`, Envoy has taken
it from `x_forwarded_for` by its own rules. The path may have a query, which is dropped.
A TLS fingerprint is read as `"tls_ja4_fingerprint": "%TLS_JA4_FINGERPRINT%"` (or ja3; Contour's names, or `ja4`,
`ja3`): the listener's TLS inspector must have `enable_ja4_fingerprinting`.
Source: Envoy's access-log operators, the default formats of Istio (pilot/pkg/model/telemetry_logging.go) and Envoy
Gateway (internal/xds/translator/accesslog.go); reference/gateways.md, section 4. No Envoy was run.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.detector import SEES_DENIED
from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, Format, Hops, Options, Refused
from pipeline.formats.values import (
    environment,
    event_of,
    fingerprint,
    first,
    iso_us,
    key_id_at,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_FINGERPRINTS: Final = ("tls_ja4_fingerprint", "ja4", "tls_ja3_fingerprint", "ja3")


def event(record: Any, options: Options) -> Event | Refused:
    """One line of the log."""
    status = status_code(record.get("response_code"))
    limited = "RL" in text(record.get("response_flags")).split(",")
    fields = {
        "key_id": key_id_at(record, status, options, "key_id", "api_key_id"),
        "ts_us": iso_us(record.get("start_time")),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(record.get("method")).upper(),
        "path": text(first(record, "path", "x-envoy-origin-path")),
        "status": status,
        "outcome": "rate_limited" if limited else outcome_of(status),
        "latency_ms": min(number(record.get("duration")), 1e9),
        "bytes_in": whole(record.get("bytes_received")),
        "bytes_out": whole(record.get("bytes_sent")),
        "user_agent": text(first(record, "user_agent", "user-agent")),
        "fingerprint": fingerprint(record, *_FINGERPRINTS),
        "environment": environment(record.get("environment")),
        "request_id": text(first(record, "request_id", "x-request-id")),
    }
    return event_of(fields, "envoy")


def hops(record: Any) -> Hops:
    """Envoy has appended its peer to the header by then, so that one may stand twice."""
    return Hops(record.get("downstream_remote_address"), first(record, "x_forwarded_for", "x-forwarded-for"))


def recognises(record: Any) -> bool:
    """By names that all of them have."""
    return "start_time" in record and "response_flags" in record


ENVOY = Format(
    name="envoy",
    sees=SEES_ALL & ~SEES_DENIED,
    event=event,
    recognises=recognises,
    key="`key_id`, `api_key_id`, or what intake.key_field names: log what the filter that checked the key has set",
    hops=hops,
    address="`downstream_remote_address`, as `use_remote_address` and `xff_num_trusted_hops` make it; "
    "`x_forwarded_for`",
)
