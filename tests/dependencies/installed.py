"""The distributions that keywatch needs, as they are installed here: by its requirements, theirs, and so on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, metadata, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "keywatch"


@dataclass(frozen=True)
class Needed:
    """One distribution; `licences` as its metadata words them, `scope` "required" or the extra that brings it."""

    name: str
    version: str
    licences: tuple[str, ...]
    scope: str
    needs: tuple[str, ...]


def needed() -> list[Needed]:
    """Required ones, then what only the extras `demo` and `dev` bring."""
    found: dict[str, Needed] = {}
    for scope, extras in (("required", ()), ("demo", ("demo",)), ("dev", ("demo", "dev"))):
        waiting = list(_needs(ROOT, extras))
        while waiting:
            name, its_extras = waiting.pop()
            if name in found or name == ROOT:
                continue
            below = list(_needs(name, its_extras))
            waiting += below
            needs = tuple(sorted({each for each, _ in below}))
            found[name] = Needed(name, version(name), licences(name), scope, needs)
    return sorted(found.values(), key=lambda each: each.name)


def _needs(name: str, extras: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in requires(name) or ():
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if wanted and _installed(need.name):
            yield canonicalize_name(need.name), tuple(need.extras)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:  # for another platform or Python
        return False
    return True


def _first(values: list[str] | None) -> str:
    return values[0] if values else ""


def licences(name: str) -> tuple[str, ...]:
    """Expression, else classifiers, else the first line of the free text."""
    about = metadata(name)
    if expression := _first(about.get_all("License-Expression")):
        return tuple(re.split(r" AND ", expression))
    classifiers = [
        text.split(" :: ")[-1] for text in about.get_all("Classifier") or () if text.startswith("License ::")
    ]
    named = [text for text in classifiers if text not in ("OSI Approved", "DFSG approved")]
    return tuple(named) or (_first(about.get_all("License")).strip().split("\n")[0],)
