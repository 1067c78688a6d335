"""What kind of thing an operation does: (method, route) -> OPERATION_*.

The words of the route decide before the method does, since `POST /tokens` makes a credential and `GET /secrets/{id}`
reads one. Cloud operations (`kms:Decrypt`, `iam:ListUsers`) have no method: their verb stands in front. A guess from
names: what an API calls by other names is a read or a write by its method.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

import numpy as np

from detectors.detector import (
    OPERATION_ADMIN,
    OPERATION_CREDENTIAL,
    OPERATION_DELETE,
    OPERATION_IDENTITY,
    OPERATION_READ,
    OPERATION_UNKNOWN,
    OPERATION_WRITE,
    OPERATIONS,
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


NAMES_NOTHING: Final = 0
NAMES_CREDENTIAL: Final = 1
NAMES_ADMIN: Final = 2
NAMES_IDENTITY: Final = 3


def of_route(route: str) -> tuple[int, int]:
    """(what the route names: NAMES_*, what its verb does: OPERATION_*); `route` is a template, without the method."""
    words = _words(route)
    joined = {a + b for a, b in pairwise(words)} | set(words)
    verb = _by_verb(_words(_LAST.split(route)[-1]))
    if words and (words[-1] in _IDENTITY or "calleridentity" in joined):
        return NAMES_IDENTITY, verb
    if joined & _CREDENTIAL:
        return NAMES_CREDENTIAL, verb
    return (NAMES_ADMIN if joined & _ADMIN else NAMES_NOTHING), verb


def of_method(method: str) -> int:
    """What the method does: OPERATION_*; unknown for none and for methods of one's own."""
    return _BY_METHOD.get(method, OPERATION_UNKNOWN)


def _combined(names: int, does: int) -> int:
    changes = does in CHANGING
    if names == NAMES_IDENTITY:
        return does if changes else OPERATION_IDENTITY
    if names == NAMES_CREDENTIAL:
        return OPERATION_CREDENTIAL
    return OPERATION_ADMIN if names == NAMES_ADMIN and does == OPERATION_WRITE else does


CHANGING: Final = (OPERATION_WRITE, OPERATION_DELETE)
COMBINED: Final = np.array([[_combined(names, does) for does in range(OPERATIONS)] for names in range(4)], "u1")
"""[what the route names, what method or verb does] -> OPERATION_*."""


def operation(method: str, route: str) -> int:
    """One of OPERATION_*; unknown where neither says anything."""
    names, verb = of_route(route)
    return int(COMBINED[names, of_method(method) or verb])


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
