"""Where the examples lie, and how one becomes its golden result; `KEYWATCH_WRITE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.config.tree import Secret
from pipeline.formats import Options, Refused, decode, place
from pipeline.secrets import scrub
from schemas.event import Event
from schemas.generate import TYPES

ROOT: Final = Path(__file__).parents[2] / "schemas" / "examples"
PLANTED: Final = (
    b"sk_live_EXAMPLE0000000000000",
    b"pk_live_EXAMPLE1111111111111",
    b"Wq7rT2mZx9Kd4LsVb8NcHf3JgYp6RaEt",
)
"""Raw keys that stand in the inputs of the cases `planted_*`, `secret_*` and others; they may come out nowhere."""


def inputs(folder: Path) -> list[Path]:
    """The example files of one folder."""
    return sorted(p for p in folder.iterdir() if not p.name.endswith((".golden.json", ".options.json")))


def beside(path: Path, kind: str) -> Path:
    """`case.json` -> `case.<kind>.json`."""
    return path.with_name(f"{path.name.partition('.')[0]}.{kind}.json")


def message_result(path: Path) -> Any:
    """What becomes of a message of a type: the message with its defaults spelt out, or why it is refused."""
    type_ = TYPES[path.parts[-3]]
    try:
        message = msgspec.json.decode(path.read_bytes(), type=type_)
    except msgspec.ValidationError as error:
        return {"refused": str(error)}
    if isinstance(message, Event):
        cleaned = scrub(message)
        if not isinstance(cleaned, Event):
            return {"refused": cleaned}
        message = cleaned
    return {name: msgspec.to_builtins(getattr(message, name)) for name in type_.__struct_fields__}


def options(path: Path) -> Options:
    """The format options of a case."""
    file = beside(path, "options")
    given = msgspec.json.decode(file.read_bytes(), type=dict[str, Any]) if file.exists() else {}
    return Options(
        key_field=given.get("key_field", ""),
        pepper=Secret(given.get("pepper", "")),
        trusted_proxies=tuple(given.get("trusted_proxies", ())),
    )


def format_result(path: Path) -> list[Any]:
    """The events and refusals of a gateway's message, read at `example/0`."""
    records = decode(path.read_bytes(), path.parent.name, options(path))
    return [_plain(place(record, f"example/{index}")) for index, record in enumerate(records)]


def _plain(record: Event | Refused) -> Any:
    kind = "refused" if isinstance(record, Refused) else "event"
    return {kind: {name: value for name, value in msgspec.structs.asdict(record).items() if value not in ("", 0)}}


def check_golden(path: Path, result: Any) -> None:
    """Compare with the golden file, or write it where the environment says so."""
    text = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    golden = beside(path, "golden")
    if os.environ.get("KEYWATCH_WRITE_GOLDEN"):
        golden.write_bytes(text)
    assert golden.exists(), f"{golden.name} is missing: look at the result, then write it with KEYWATCH_WRITE_GOLDEN=1"
    assert golden.read_bytes() == text
