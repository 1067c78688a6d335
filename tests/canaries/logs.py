"""Gateway records with a raw key in every place where one may stand (reference/gateways.md, section 2)."""

from __future__ import annotations

import json
import random
import string
from typing import Any, Final

from pipeline.formats import FORMATS

_RANDOM = random.Random(20_261_125)


def _some(chars: str, length: int) -> str:
    return "".join(_RANDOM.choice(chars) for _ in range(length))


_62: Final = string.ascii_letters + string.digits
_HEX: Final = "0123456789abcdef"

CANARIES: Final[dict[str, str]] = {
    "stripe": "sk_live_" + _some(_62, 24), "stripe test": "rk_test_" + _some(_62, 24),
    "openai": "sk-proj-" + _some(_62, 40), "anthropic": "sk-ant-api03-" + _some(_62, 60),
    "github": "ghp_" + _some(_62, 36), "github fine": "github_pat_" + _some(_62, 40),
    "gitlab": "glpat-" + _some(_62, 20), "slack": "xoxb-" + _some(string.digits, 12) + "-" + _some(_62, 24),
    "jwt": "eyJ" + _some(_62, 20) + ".eyJ" + _some(_62, 60) + "." + _some(_62, 43), "google": "AIza" + _some(_62, 35),
    "webhook": "whsec_" + _some(_62, 32), "npm": "npm_" + _some(_62, 36),
    "sendgrid": f"SG.{_some(_62, 22)}.{_some(_62, 43)}",
    "hugging face": "hf_" + _some(_62, 34), "digitalocean": "dop_v1_" + _some(_HEX, 64),
    "random": "Wq7rT2mZx9Kd4LsVb8NcHf3JgYp6RaEt", "aws secret": "wJa1rXUtnFEMI/K7MDENG/bPxRf8CYEX4MPL3KEY",
}  # fmt: skip
"""Kind -> a raw key; random ones without a prefix have 28 characters and more, shorter ones can't be told from ids."""

T_US: Final = 1_780_000_100_000_000


def messages(kind: str, secret: str) -> list[tuple[str, bytes]]:
    """(format, message): a secret of one kind in every place, one place a message."""
    made: list[tuple[str, Any]] = []
    for place in ("key_id", "path", "route", "user_agent", "scope", "source", "position", "apikey", "headers"):
        value: Any = f"/v1/items/{secret}" if place in ("path", "route") else secret
        made.append(("native", _native(kind, place, {"apikey": secret} if place == "headers" else value)))
    made.append(("native", _native(kind, "path", f"/v1/items?apikey={secret}&x=1#{secret}")))
    made.append(("native", _native(kind, "user_agent", f"Bearer {secret}")))
    made += [("kong", _kong(kind, place, secret)) for place in KONG_PLACES]
    made += [
        ("aws_apigateway", _aws(kind, place, secret)) for place in ("identity.apiKey", "path", "userAgent", "query")
    ]
    made += [
        ("cloudtrail", _cloudtrail(kind, place, secret)) for place in ("requestParameters", "userAgent", "errorMessage")
    ]
    made += [(format, record) for format in FORMATS if format != "combined" for record in _others(secret)]
    all_of_it = [(format, json.dumps(record).encode()) for format, record in made] + _combined(kind, secret)
    if "/" in secret:  # a known gap: in a path it is three short segments, which nobody can tell from names
        return [(format, raw) for format, raw in all_of_it if b"/" + secret.encode() not in raw]
    return all_of_it


def _native(kind: str, place: str, value: Any) -> dict[str, Any]:
    return {"key_id": "pk_1", "ts_us": T_US, "client_ip": "185.220.101.4", "method": "GET", "path": "/v1/a",
            "status": 403, "outcome": "denied", "request_id": f"{kind}/{place}", place: value}  # fmt: skip


KONG_PLACES: Final = (
    "headers.apikey",
    "headers.authorization",
    "headers.cookie",
    "querystring.apikey",
    "uri",
    "url",
    "body",
)


def _kong(kind: str, place: str, secret: str) -> dict[str, Any]:
    request: dict[str, Any] = {"uri": "/v1/a", "method": "GET", "id": f"{kind}/{place}", "size": "12",
                               "headers": {"user-agent": "curl/8.1"}, "querystring": {}}  # fmt: skip
    group, _, name = place.partition(".")
    if name:
        request[group][name] = f"Bearer {secret}" if name == "authorization" else secret
    else:
        request[group] = f"https://h/v1/a?apikey={secret}" if group == "url" else f"/v1/a?apikey={secret}"
    return {"started_at": T_US // 1000, "client_ip": "185.220.101.4", "request": request, "latencies": {"request": 3},
            "response": {"status": 200, "size": 9, "headers": {"set-cookie": secret}},
            "authenticated_entity": {"id": "pk_1"}, "upstream_uri": f"/v1/a?apikey={secret}"}  # fmt: skip


def _aws(kind: str, place: str, secret: str) -> dict[str, Any]:
    record = {"requestId": f"{kind}/{place}", "requestTimeEpoch": str(T_US // 1000), "httpMethod": "GET",
              "status": "200", "resourcePath": "/v1/a", "apiKeyId": "pk_1", "sourceIp": "185.220.101.4",
              "path": "/v1/a"}  # fmt: skip
    return {**record, place: f"/v1/{secret}" if place == "path" else secret}


def _cloudtrail(kind: str, place: str, secret: str) -> dict[str, Any]:
    return {"eventSource": "s3.amazonaws.com", "eventName": "GetObject", "eventTime": "2026-05-28T20:28:20Z",
            "userIdentity": {"accessKeyId": "pk_1"}, "sourceIPAddress": "185.220.101.4", "eventID": f"{kind}/{place}",
            "userAgent": "aws-cli", "responseElements": {"credentials": {"sessionToken": secret}},
            place: secret}  # fmt: skip


def _others(secret: str) -> list[dict[str, Any]]:
    """Gateways that we have no format for, sent all the same: APISIX, Tyk, Envoy, NGINX, Traefik, OTel, ECS, OCSF."""
    return [
        {"start_time": 1.0, "request": {"headers": {"apikey": secret}, "uri": f"/a?apikey={secret}"}},
        {"api_key": secret, "timestamp": "2026-05-28T20:28:20Z", "raw_path": f"/a?k={secret}"},
        {"start_time": "2026-05-28T20:28:20Z", "path": f"/a?k={secret}", "x_api_key": secret},
        {"msec": "1.2", "uri": "/a", "args": f"apikey={secret}", "http_x_api_key": secret},
        {"StartUTC": "2026-05-28T20:28:20Z", "RequestPath": f"/a?k={secret}", "Duration": 1},
        {"resourceLogs": [{"attributes": {"http.request.header.x-api-key": [secret]}}]},
        {"@timestamp": "2026-05-28T20:28:20Z", "http": {"request": {"headers": {"x-api-key": secret}}}},
        {"class_uid": 6003, "api": {"token": {"value": secret}}, "time": 1},
    ]


def _combined(kind: str, secret: str) -> list[tuple[str, bytes]]:
    time = "[28/May/2026:20:28:20 +0000]"
    return [
        ("combined", f'185.220.101.4 - {secret} {time} "GET /a HTTP/1.1" 200 1 "-" "curl"'.encode()),
        ("combined", f'185.220.101.4 - pk_1 {time} "GET /a?k={secret} HTTP/1.1" 200 1 "-" "curl"'.encode()),
        (
            "combined",
            f'185.220.101.4 - pk_1 {time} "GET /a/{secret} HTTP/1.1" 200 1 "http://h/{secret}" "{secret}"'.encode(),
        ),
        ("combined", f'185.220.101.4 - pk_1 {time} "{secret}" 400 1 "-" "-"'.encode()),
        ("combined", f"{kind} {secret} is no line of a log".encode()),
    ]
