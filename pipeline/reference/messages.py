"""Every message that goes over a topic: its fields, types, defaults and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args

import msgspec

from pipeline.reference.words import default_words, field_words, summary, table, type_words, unit
from schemas.generate import TYPES
from schemas.reasons import SENTENCES

HEAD: Final = """# Messages

JSON, one message a record, in `schemas/json/` as JSON Schema and in `schemas/examples/` as examples. A new field has a
default and old readers may pass over it; what changes its meaning is a new version. `tests/schemas/test_compatible.py`
holds this against what was released. A field without a default is always there.

"""


def page() -> str:
    """Markdown."""
    return HEAD + "\n".join(_message(name, kind) for name, kind in TYPES.items()) + "\n" + _reasons()


def inner(kind: Any) -> Iterator[Any]:
    """The Structs that a message's fields are made of, each once, without messages themselves."""
    for field in msgspec.structs.fields(kind):
        for part in _structs(field.type):
            if part not in TYPES.values():
                yield part
                yield from inner(part)


def _structs(kind: Any) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from _structs(argument)


def _message(name: str, kind: Any) -> str:
    version = next(field.default for field in msgspec.structs.fields(kind) if field.name == "v")
    parts = dict.fromkeys(inner(kind))
    text = f"## {name}\n\n{summary(kind)} Schema: `{name}.v{version}.json`.\n\n{_fields(kind)}"
    return text + "".join(f"\n`{part.__name__}`: {summary(part)}\n\n{_fields(part)}" for part in parts)


def _fields(kind: Any) -> str:
    said = field_words(kind)
    tag = kind.__struct_config__
    rows = [(f"`{tag.tag_field}`", f"`{tag.tag}`", "needed", "", "")] if tag.tag else []
    rows += [
        (
            f"`{field.encode_name}`",
            type_words(field.type),
            default_words(field),
            unit(field),
            said[field.name],
        )
        for field in msgspec.structs.fields(kind)
    ]
    return table(("field", "type", "default", "unit", "meaning"), rows)


def _reasons() -> str:
    rows = [(f"`{reason}`", words) for reason, words in SENTENCES.items()]
    return "## Reasons of `rejected`\n\n" + table(("reason", "meaning"), rows)
