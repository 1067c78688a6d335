"""What kind of thing an operation does: (method, route) -> OPERATION_*.

The words of the route decide before the method does, since `POST /tokens` makes a credential and `GET /secrets/{id}`
reads one. Cloud operations (`kms:Decrypt`, `iam:ListUsers`) have no method: their verb stands in front. A guess from
names: what an API calls by other names is a read or a write by its method.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from detectors.detector import (
    OPERATION_ADMIN,
    OPERATION_CREDENTIAL,
    OPERATION_DELETE,
    OPERATION_IDENTITY,
    OPERATION_READ,
    OPERATION_UNKNOWN,
    OPERATION_WRITE,
)

_LAST: Final = re.compile(r"[/:]")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_IDENTITY: Final = frozenset({"me", "whoami", "self", "userinfo", "calleridentity"})
_CREDENTIAL: Final = frozenset(
    [
        "apikey",
        "apikeys",
        "key",
        "keys",
        "accesskey",
        "accesskeys",
        "token",
        "tokens",
        "secret",
        "secrets",
        "credential",
        "credentials",
        "password",
        "passwords",
        "loginprofile",
        "parameter",
        "parameters",
        "keypair",
        "keypairs",
        "oauth2",
        "mfa",
        "sessiontoken",
        "ssmparameter",
    ]
)
_ADMIN: Final = frozenset(
    [
        "admin",
        "admins",
        "user",
        "users",
        "role",
        "roles",
        "policy",
        "policies",
        "permission",
        "permissions",
        "member",
        "members",
        "team",
        "teams",
        "grant",
        "grants",
        "account",
        "accounts",
        "billing",
        "setting",
        "settings",
        "organization",
        "organizations",
        "group",
        "groups",
        "trail",
        "trails",
        "logging",
        "webhook",
        "webhooks",
        "sso",
        "audit",
        "quota",
        "quotas",
    ]
)
_DELETE_VERBS: Final = frozenset(
    ["delete", "remove", "purge", "terminate", "destroy", "detach", "stop", "disable", "deregister", "revoke"]
)
_WRITE_VERBS: Final = frozenset(
    [
        "create",
        "put",
        "update",
        "modify",
        "set",
        "add",
        "attach",
        "post",
        "write",
        "run",
        "start",
        "invoke",
        "import",
        "send",
        "register",
        "enable",
        "restore",
        "copy",
        "upload",
        "share",
        "authorize",
        "assume",
    ]
)
_READ_VERBS: Final = frozenset(
    ["get", "list", "describe", "head", "lookup", "search", "batch", "select", "read", "query", "scan"]
)
_BY_METHOD: Final = {
    "GET": OPERATION_READ, "HEAD": OPERATION_READ, "OPTIONS": OPERATION_READ, "TRACE": OPERATION_READ,
    "POST": OPERATION_WRITE, "PUT": OPERATION_WRITE, "PATCH": OPERATION_WRITE, "DELETE": OPERATION_DELETE,
}  # fmt: skip


def operation(method: str, route: str) -> int:
    """One of OPERATION_*; unknown where neither says anything. `route` is a template, without the method."""
    words = _words(route)
    joined = {a + b for a, b in pairwise(words)} | set(words)
    base = _BY_METHOD.get(method) or _by_verb(_words(_LAST.split(route)[-1]))
    changes = base in (OPERATION_WRITE, OPERATION_DELETE)
    if words and (words[-1] in _IDENTITY or joined & {"calleridentity"}):
        return OPERATION_IDENTITY if not changes else base
    if joined & _CREDENTIAL:
        return OPERATION_CREDENTIAL
    if base == OPERATION_DELETE:
        return OPERATION_DELETE
    return OPERATION_ADMIN if changes and joined & _ADMIN else base


def _words(route: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(re.sub(r"\{[^}]*\}", " ", route))]


def _by_verb(words: list[str]) -> int:
    for word in words[:2]:
        if word in _DELETE_VERBS:
            return OPERATION_DELETE
        if word in _WRITE_VERBS:
            return OPERATION_WRITE
        if word in _READ_VERBS:
            return OPERATION_READ
    return OPERATION_UNKNOWN
