"""Whether a message may change as it did: `python -m schemas.compatible` says what a change breaks, and for whom.

`schemas/json/released/` has each schema as it was released. Two programs meet on a topic, one of that release and one
of today, so both ways must hold: who WRITES as released is read by today's schema (no field is newly required, no type
or limit narrower), and who READS as released understands what is written today (no field gone or no longer certain, no
value that he can't know). What changes more is a new version of the message, beside the old one.

    python -m schemas.compatible             the changes, one a line; exit code 1 where one breaks somebody
    python -m schemas.compatible --release   take today's schemas as released, unless one breaks somebody
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas import generate

FOLDER: Final = generate.FOLDER / "released"
Schema = dict[str, Any]
Side = Literal["writers", "readers"]
BOTH: Final[tuple[Side, ...]] = ("writers", "readers")

PARTIES: Final[dict[str, dict[Side, str]]] = {
    "event": {"writers": "gateways and intakes", "readers": "workers"},
    "key": {"writers": "whoever declares keys", "readers": "workers, responders, audits"},
    "incident": {"writers": "workers", "readers": "responders, webhooks' receivers, consumers of api.incidents"},
    "response": {"writers": "responders", "readers": "the audit, consumers of api.responses"},
    "rejected": {"writers": "workers and intakes", "readers": "whoever mends gateways"},
    "feedback": {"writers": "operators' commands, the console", "readers": "workers"},
    "mute": {"writers": "operators' commands, the console", "readers": "workers"},
    "planned": {"writers": "operators' commands, the console", "readers": "workers"},
    "forget": {"writers": "`keywatch erase`", "readers": "workers"},
    "key_event": {"writers": "key services", "readers": "workers of the lifecycle"},
    "sighting": {"writers": "workers of the keys", "readers": "workers of the sources"},
    "beats": {"writers": "workers of the keys", "readers": "workers of the sources"},
    "break": {"writers": "workers of the keys", "readers": "workers of the sources"},
}
"""Who writes and who reads each message."""

LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


@dataclass(frozen=True)
class Change:
    """One difference. `breaks`: whose programs of the release it breaks; () is nobody's."""

    where: str
    what: str
    breaks: tuple[Side, ...] = ()


def changes(released: Schema, today: Schema) -> list[Change]:
    """All differences of two JSON Schemas that matter to who writes or reads, in the order of the fields."""
    return list(_Pair(released, today).compare(released, today, ""))


class _Pair:
    """Two schemas; `$ref` is looked up in the one it stands in. No message holds itself, so this ends."""

    def __init__(self, released: Schema, today: Schema) -> None:
        self._old, self._new = released.get("$defs", {}), today.get("$defs", {})

    def compare(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        was, now = _alternatives(old, self._old), _alternatives(new, self._new)
        yield from _kinds(was, now, where)
        for kind in (kind for kind in was if kind in now):
            yield from self._same_kind(was[kind], now[kind], where)

    def _same_kind(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        yield from _whole(old, new, where)
        yield from _values(old, new, where)
        yield from _limits(old, new, where)
        yield from self._fields(old, new, where)
        yield from self._items(old, new, where)

    def _fields(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        was, now = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in [*was, *(name for name in now if name not in was)]:
            at = f"{where}.{name}".lstrip(".")
            if name not in now:
                yield Change(at, "is gone", BOTH)
            elif name not in was:
                yield _added(at, name in needs)
            else:
                yield from _certainty(at, name in needed, name in needs)
                yield from _default(at, was[name], now[name])
                yield from self.compare(was[name], now[name], at)

    def _items(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        for word, at in (("items", "[]"), ("additionalProperties", "{}")):
            was, now = old.get(word), new.get(word)
            if isinstance(was, dict) and isinstance(now, dict):
                yield from self.compare(was, now, where + at)
            elif was != now:
                yield Change(where + at, "may hold something else", BOTH)
        was, now = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(was) != len(now):
            yield Change(where, f"has {len(now)} places, had {len(was)}", BOTH)
        for place, (one, other) in enumerate(zip(was, now, strict=False)):
            yield from self.compare(one, other, f"{where}[{place}]")


def _alternatives(schema: Schema, named: dict[str, Schema]) -> dict[str, Schema]:
    """Kind -> schema of each of the types that are allowed. Raises ValueError for two of one kind.

    Kinds are JSON's types, with whole numbers among the numbers.
    """
    if "$ref" in schema:
        schema = named[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        parts = [(kind, part) for each in schema["anyOf"] for kind, part in _alternatives(each, named).items()]
        if len(dict(parts)) < len(parts):
            raise ValueError("two alternatives of one kind can't be told apart")
        return dict(parts)
    if "enum" in schema and "type" not in schema:
        return {_JSON[type(value)]: schema for value in schema["enum"]}
    kind = str(schema.get("type", "anything"))
    return {"number" if kind == "integer" else kind: schema}


_JSON: Final[dict[type, str]] = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _kinds(was: dict[str, Schema], now: dict[str, Schema], where: str) -> Iterator[Change]:
    for kind in sorted(was.keys() - now.keys()):
        yield Change(where, f"may not be {kind} any more", ("writers",))
    for kind in sorted(now.keys() - was.keys()):
        yield Change(where, f"may be {kind} now", ("readers",))


def _whole(old: Schema, new: Schema, where: str) -> Iterator[Change]:
    match old.get("type"), new.get("type"):
        case "number", "integer":
            yield Change(where, "must be whole now", ("writers",))
        case "integer", "number":
            yield Change(where, "need not be whole any more", ("readers",))


def _values(old: Schema, new: Schema, where: str) -> Iterator[Change]:
    was, now = old.get("enum"), new.get("enum")
    if was is not None and now is not None:
        for value in (each for each in was if each not in now):
            yield Change(where, f"loses the value {value!r}", ("writers",))
        for value in (each for each in now if each not in was):
            yield Change(where, f"gets the value {value!r}", ("readers",))
    elif was is not None:
        yield Change(where, "may be any value now", ("readers",))
    elif now is not None:
        yield Change(where, "may be these values only", ("writers",))


def _limits(old: Schema, new: Schema, where: str) -> Iterator[Change]:
    for words, sign in ((LEAST, 1), (MOST, -1)):
        for word in words:
            was, now = old.get(word), new.get(word)
            if was != now:
                narrower = was is None or (now is not None and sign * now > sign * was)
                side: Side = "writers" if narrower else "readers"
                yield Change(where, f"{word} was {was}, is {now}", (side,))
    for word in ("pattern", "format", "contentEncoding"):
        was, now = old.get(word), new.get(word)
        if was != now:
            sides: tuple[Side, ...] = ("writers",) if was is None else ("readers",) if now is None else BOTH
            yield Change(where, f"{word} was {was}, is {now}", sides)


def _added(where: str, needed: bool) -> Change:
    return Change(where, "is new and needed", ("writers",)) if needed else Change(where, "is new")


def _certainty(where: str, needed: bool, needs: bool) -> Iterator[Change]:
    if needs and not needed:
        yield Change(where, "is needed now", ("writers",))
    if needed and not needs:
        yield Change(where, "may be missing now", ("readers",))


def _default(where: str, old: Schema, new: Schema) -> Iterator[Change]:
    nothing = object()
    was, now = old.get("default", nothing), new.get("default", nothing)
    if was is not nothing and now is not nothing and was != now:
        yield Change(where, f"missing means {now!r} now, not {was!r}", BOTH)


def report() -> list[tuple[str, Change]]:
    """(file, change) of every released schema against today's; a message that is gone breaks everybody."""
    today = {name: json.loads(text) for name, text in generate.schemas().items()}
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        if path.name not in today:
            found.append((path.name, Change("", "is gone", BOTH)))
        else:
            found += [(path.name, each) for each in changes(json.loads(path.read_bytes()), today[path.name])]
    return found


def words(file: str, change: Change) -> str:
    """One line: what changed, and whose programs of the release break by it."""
    who = PARTIES[file.partition(".")[0]]
    hit = " and ".join(f"{who[side]} ({side} of the release)" for side in change.breaks)
    return f"{file}: {change.where or 'the message'} {change.what}" + (f": breaks {hit}" if hit else "")


def main(arguments: list[str]) -> int:
    """The command."""
    found = report()
    sys.stdout.writelines(f"{words(*each)}\n" for each in found)
    if any(change.breaks for _, change in found):
        return 1
    if "--release" in arguments:
        FOLDER.mkdir(exist_ok=True)
        for name, text in generate.schemas().items():
            (FOLDER / name).write_bytes(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
