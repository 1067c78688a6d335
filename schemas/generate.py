"""JSON Schema out of the types: `python -m schemas.generate` writes `schemas/json/*.json`; a test holds them equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.control import Feedback, Forget, Mute, Planned
from schemas.event import Event
from schemas.incident import Incident
from schemas.key import Key
from schemas.key_event import KeyEvent
from schemas.reasons import Rejected
from schemas.response import Response
from schemas.sighting import Beats, Break, Sighting

TYPES: Final[dict[str, Any]] = {
    "event": Event,
    "key": Key,
    "incident": Incident,
    "response": Response,
    "rejected": Rejected,
    "feedback": Feedback,
    "mute": Mute,
    "planned": Planned,
    "forget": Forget,
    "key_event": KeyEvent,
    "sighting": Sighting,
    "beats": Beats,
    "break": Break,
}
"""Name of a message -> its type: what goes over a topic, and nothing else."""

FOLDER: Final = Path(__file__).parent / "json"


def schemas() -> dict[str, bytes]:
    """File name -> JSON Schema (draft 2020-12) with sorted keys, one line feed at the end."""
    return {f"{name}.v{_version(type_)}.json": _text(name, type_) for name, type_ in TYPES.items()}


def _version(type_: Any) -> int:
    return int(next(field.default for field in msgspec.structs.fields(type_) if field.name == "v"))


def _text(name: str, type_: Any) -> bytes:
    body = msgspec.json.schema(type_)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Keywatch {name} v{_version(type_)}"}
    return msgspec.json.format(msgspec.json.encode(head | body, order="sorted"), indent=2) + b"\n"


def main() -> None:
    """Write all files; ones of types that are gone are removed."""
    FOLDER.mkdir(exist_ok=True)
    wanted = schemas()
    for old in FOLDER.glob("*.json"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_bytes(text)


if __name__ == "__main__":
    main()
