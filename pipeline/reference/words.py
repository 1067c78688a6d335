"""Words about code that the code itself has: comments at fields, docstrings, types; and Markdown of them."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import io
import re
import tokenize
import types
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec

from pipeline.config.setting import Secret

UNITS: Final = {
    "_s": "seconds", "_us": "microseconds", "_ms": "milliseconds", "_h": "hours", "_days": "days", "_day": "a day",
    "_min": "minutes", "_bytes": "bytes", "_bits": "bits", "_km": "km", "_km_per_h": "km/h", "_per_s": "a second",
    "_per_hour": "an hour", "_per_day": "a day", "_rate_h": "an hour", "_rows": "rows", "_events": "events",
    "_ratio": "0 to 1", "_share": "0 to 1", "_share_of_active": "0 to 1",
}  # fmt: skip
"""End of a name -> unit: units stand in names (design, section 6)."""
NOT_WORDS: Final = re.compile(r"noqa(: \w+)?|type: ignore\S*|fmt: \w+")


def unit(field: Any) -> str:
    """The unit in a number's name, the longest ending that fits; "" for none."""
    kind, _ = _bare(field.type)
    if kind not in (int, float):
        return ""
    ends = [end for end in UNITS if field.name.endswith(end)]
    return UNITS[max(ends, key=len)] if ends else "bytes" if field.name.startswith("bytes_") else ""


def comments(source: str) -> dict[int, str]:
    """Line -> its comment's words, `noqa` and the like left out."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (text := NOT_WORDS.sub("", token.string.lstrip("#")).strip()):
            found[token.start[0]] = text
    return found


@functools.cache
def field_words(kind: type) -> dict[str, str]:
    """Field of a class -> the comment on its lines."""
    source = inspect.getsource(kind)
    said = comments(source)
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    return {
        node.target.id: " ".join(said[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in said)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def summary(kind: type) -> str:
    """The first paragraph of a class' own docstring, on one line; "" without one."""
    return " ".join(inspect.cleandoc(vars(kind).get("__doc__") or "").partition("\n\n")[0].split())


@functools.cache
def module_source(name: str) -> str:
    """The source of a module."""
    return inspect.getsource(importlib.import_module(name))


def type_words(kind: Any) -> str:
    """A type in words: "number, above 0", "`off`, `simulate` or `enforce`", "list of text"."""
    kind, meta = _bare(kind)
    origin, args = get_origin(kind), get_args(kind)
    if meta and (choice := re.fullmatch(r"\^\((\w[\w|+-]*)\)\$", meta.pattern or "")):
        return either(choice[1].split("|"))
    if origin is Literal:
        return either(args)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if arg is type(None) else type_words(arg) for arg in args)
    if origin is tuple:
        return f"list of {type_words(args[0])}"
    if origin is dict:
        return f"table of {type_words(args[1])}"
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        return kind.__name__
    plain = "secret" if kind is Secret else _PLAIN.get(kind, str(kind))
    return ", ".join([plain, *_limits(meta)])


def _bare(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    """Without `Annotated`."""
    metadata = getattr(kind, "__metadata__", ())
    return (kind.__origin__, metadata[0]) if metadata else (kind, None)


_PLAIN: Final[dict[Any, str]] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", bytes: "base64"
}  # fmt: skip


def _limits(meta: msgspec.Meta | None) -> list[str]:
    """What a value must keep to. A lower limit of 0 goes without saying."""
    if meta is None:
        return []
    found = [
        (meta.gt, "above {:,}"), (meta.ge or None, "at least {:,}"), (meta.le, "at most {:,}"), (meta.lt, "below {:,}"),
        (meta.max_length, "at most {:,} characters"),
    ]  # fmt: skip
    return [words.format(value) for value, words in found if value is not None]


def either(values: Iterable[Any]) -> str:
    """`a`, `b` or `c`; nothing is called "empty"."""
    *first, last = [f"`{value}`" if value != "" else "empty" for value in values]
    return f"{', '.join(first)} or {last}" if first else last


def default_words(field: Any) -> str:
    """A field's default as it would be written in JSON and TOML; "needed" for none."""
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if value is msgspec.NODEFAULT:
        return "needed"
    if isinstance(value, msgspec.Struct) or value is None:
        return ""
    if value in ("", (), [], {}):
        return "empty"
    return f"`{msgspec.json.encode(value).decode()}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
