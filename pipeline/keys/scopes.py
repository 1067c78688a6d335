"""Which of a key's scopes its requests need, judged by the scopes' names, where the gateway logs none.

A scope's name is an action (read, write, delete, admin), a resource, or both: `orders:read`, `write_users`, `billing`.
The resource is needed by a request whose route names it (singular or plural), the action by a request whose method
does such a thing. What can't be told from the name is said so: a resource that no key's route names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

Operation = tuple[str, str]
"""Method and route."""

READS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ACTIONS: Final = {
    **dict.fromkeys(("read", "readonly", "ro", "get", "list", "view"), READS),
    **dict.fromkeys(("write", "create", "update", "edit", "modify", "rw", "readwrite"), CHANGES),
    **dict.fromkeys(("delete", "remove"), frozenset({"DELETE"})),
    **dict.fromkeys(("admin", "manage", "full", "all"), READS | CHANGES),
}
_NOTHING: Final = frozenset({"api", "scope", "v", "only", "access"})


def parts(scope: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The methods that its action stands for, None where it names no action; and the resources it names."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", scope)]
    methods = [_ACTIONS[word] for word in words if word in _ACTIONS]
    resources = frozenset(singular(word) for word in words if word not in _ACTIONS and word not in _NOTHING)
    return (frozenset().union(*methods) if methods else None), resources


def needed(scope: str, done: Iterable[Operation], fleet_words: Collection[str]) -> bool | None:
    """Whether a key that did this needs the scope; None where its name says nothing. `fleet_words`: of all routes."""
    methods, resources = parts(scope)
    if resources and not resources & set(fleet_words):
        return None
    if methods is None and not resources:
        return None
    return any(_fits(methods, resources, method, route) for method, route in done)


def _fits(methods: frozenset[str] | None, resources: frozenset[str], method: str, route: str) -> bool:
    return (methods is None or not method or method in methods) and (not resources or bool(resources & words_of(route)))


def words_of(route: str) -> frozenset[str]:
    """The words of a route, in the singular, without its placeholders: /v1/Orders/{id} -> order, v."""
    return frozenset(singular(word) for word in re.findall(r"[a-z]+", re.sub(r"\{[^}]*\}", " ", route).lower()))


def singular(word: str) -> str:
    """By the commonest rules only: both sides of a comparison go through it."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
