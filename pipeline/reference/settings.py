"""Every setting of `keywatch.toml`: type, default, unit, what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

import msgspec

from pipeline.config.setting import Secret
from pipeline.config.tree import Config
from pipeline.reference.words import default_words, field_words, summary, table, type_words, unit

HEAD: Final = """# Settings

One TOML file (`--config FILE`, or `KEYWATCH_CONFIG`). Each setting can be given as a variable, too: `[kafka] brokers`
is `KEYWATCH_KAFKA__BROKERS`. Each secret can be read from a file: `password_file`, `KEYWATCH_KAFKA__PASSWORD_FILE`. An
unknown name is refused, with the nearest known one. `keywatch config check` judges a file, `keywatch config show`
prints what counts, with secrets as stars, `keywatch config schema` is this page for editors. The knobs of
`[detectors.<name>]` are with the [detectors](detectors.md).

"""


def page() -> str:
    """Markdown."""
    return HEAD + "\n".join(_section(path, kind) for path, kind in sections(Config))


def sections(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every table of the file that has settings: (its head in TOML, its type), in the order of the file."""
    for field in msgspec.structs.fields(kind):
        where = f"{path}.{field.name}" if path else field.name
        if get_origin(field.type) is tuple and _is_table(get_args(field.type)[0]):
            yield f"[[{where}]]", get_args(field.type)[0]
        elif _is_table(field.type):
            yield f"[{where}]", field.type
            yield from sections(field.type, where)


def settings_of(kind: Any) -> list[Any]:
    """Fields of a table that are settings and no tables."""
    return [
        field
        for field in msgspec.structs.fields(kind)
        if not _is_table(field.type) and not (get_origin(field.type) is tuple and _is_table(get_args(field.type)[0]))
    ]


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _section(path: str, kind: Any) -> str:
    fields = settings_of(kind)
    if not fields:
        return ""
    said = field_words(kind)
    rows = [(f"`{field.name}`", _type(field), default_words(field), unit(field), said[field.name]) for field in fields]
    return f"## `{path}`\n\n{summary(kind)}\n\n" + table(("setting", "type", "default", "unit", "what it does"), rows)


def _type(field: Any) -> str:
    return "secret" if field.type is Secret else type_words(field.type)


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the file, with what each setting does: editors show it. Changes and returns `schema`."""
    for _, kind in sections(Config):
        said = field_words(kind)
        for name, about in schema["$defs"][kind.__name__]["properties"].items():
            if said[name]:
                about["description"] = said[name]
    return schema
