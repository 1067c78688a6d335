"""Go's text/template as Helm uses it, as far as our chart goes: what CI renders the chart with, where there is no Helm.

Actions: pipelines, variables, `if`, `else`, `else if`, `with`, `range` (one or two variables), `define`, `include`,
comments, trimming. Functions: those of `_functions`; any other is an error, so that a template can't silently go beyond
what is rendered here. `tests/deploy/test_helm.py` compares the outcome with Helm's own where Helm is installed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

_ACTION: Final = re.compile(
    r"\{\{(-?)\s*(/\*.*?\*/|(?:\"(?:\\.|[^\"\\])*\"|[^\"{}]|\{(?!\{)|\}(?!\}))*?)\s*(-?)\}\}", re.DOTALL
)
_TOKEN: Final = re.compile(r'"(?:\\.|[^"\\])*"|:=|\(|\)|\||,|=|[^\s()|,]+')


@dataclass(slots=True)
class Node:
    """A text, an action, or a block with what stands in it and in its `else`."""

    kind: str
    words: list[str] = field(default_factory=list)
    text: str = ""
    inside: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


def parse(source: str) -> list[Node]:
    """The template as a tree. Raises AssertionError where blocks don't close."""
    parts = list(_parts(source))
    nodes, rest = _block(parts, 0)
    assert rest == len(parts), "an {{ end }} too many"
    return nodes


def _parts(source: str) -> Iterator[str | list[str]]:
    at, trim = 0, False
    for found in _ACTION.finditer(source):
        text = source[at : found.start()]
        text = text.lstrip() if trim else text
        yield text.rstrip() if found[1] else text
        if not found[2].startswith("/*"):
            yield _TOKEN.findall(found[2])
        at, trim = found.end(), bool(found[3])
    tail = source[at:]
    assert "{{" not in tail, f"an action that can't be read: {tail[:80]}"
    yield tail.lstrip() if trim else tail


def _block(parts: Sequence[str | list[str]], at: int) -> tuple[list[Node], int]:
    """Nodes up to an `end` or `else` that belongs to the caller; the index of that."""
    nodes: list[Node] = []
    while at < len(parts):
        part = parts[at]
        if isinstance(part, str):
            nodes.append(Node("text", text=part))
        elif part[:1] in (["end"], ["else"]):
            return nodes, at
        elif part[:1] in (["if"], ["with"], ["range"], ["define"]):
            node, at = _opened(parts, at, part)
            nodes.append(node)
        else:
            nodes.append(Node("action", part))
        at += 1
    return nodes, at


def _opened(parts: Sequence[str | list[str]], at: int, words: list[str]) -> tuple[Node, int]:
    node = Node(words[0], words[1:])
    node.inside, at = _block(parts, at + 1)
    closing = parts[at]
    assert isinstance(closing, list)
    if closing == ["else"]:
        node.otherwise, at = _block(parts, at + 1)
    elif closing[:1] == ["else"]:  # else if: a block of its own, closed by the same end
        inner, at = _opened(parts, at, closing[1:])
        node.otherwise = [inner]
    return node, at


@dataclass
class Files:
    """The chart's files, as `.Files`."""

    texts: Mapping[str, str]

    def get(self, path: str) -> str:
        """One file's text."""
        return self.texts[path]

    def glob(self, pattern: str) -> dict[str, str]:
        """Path and text of those that fit."""
        shape = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
        return {path: text for path, text in sorted(self.texts.items()) if shape.fullmatch(path)}


class Renderer:
    """The templates of one chart, by name; `render` one of them."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._defined: dict[str, list[Node]] = {}
        self._files = {name: parse(source) for name, source in sources.items()}
        for nodes in self._files.values():
            self._defined |= {json.loads(node.words[0]): node.inside for node in nodes if node.kind == "define"}
        self._functions = _functions() | {"include": self._include}

    def render(self, name: str, root: Mapping[str, Any]) -> str:
        """The text of one file."""
        return self._run(self._files[name], root, [{"$": root}])

    def _include(self, name: str, dot: Any) -> str:
        return self._run(self._defined[name], dot, [{"$": dot}])

    def _run(self, nodes: Sequence[Node], dot: Any, scopes: list[dict[str, Any]]) -> str:
        return "".join(self._one(node, dot, scopes) for node in nodes)

    def _one(self, node: Node, dot: Any, scopes: list[dict[str, Any]]) -> str:
        if node.kind in ("text", "define"):
            return node.text
        if node.kind == "action":
            return self._act(node.words, dot, scopes)
        if node.kind == "range":
            return self._range(node, dot, scopes)
        value = self._pipe(node.words, dot, scopes)
        if not _true(value):
            return self._run(node.otherwise, dot, [*scopes, {}])
        return self._run(node.inside, value if node.kind == "with" else dot, [*scopes, {}])

    def _act(self, words: list[str], dot: Any, scopes: list[dict[str, Any]]) -> str:
        if words[1:2] == [":="]:
            scopes[-1][words[0]] = self._pipe(words[2:], dot, scopes)
            return ""
        if words[1:2] == ["="]:
            scope = next(scope for scope in reversed(scopes) if words[0] in scope)
            scope[words[0]] = self._pipe(words[2:], dot, scopes)
            return ""
        return _text(self._pipe(words, dot, scopes))

    def _range(self, node: Node, dot: Any, scopes: list[dict[str, Any]]) -> str:
        names: list[str] = []
        words = node.words
        if ":=" in words:
            at = words.index(":=")
            names, words = [word for word in words[:at] if word != ","], words[at + 1 :]
        found = self._pipe(words, dot, scopes)
        pairs = sorted(found.items()) if isinstance(found, Mapping) else list(enumerate(found or ()))
        if not pairs:
            return self._run(node.otherwise, dot, [*scopes, {}])
        return "".join(
            self._run(node.inside, value, [*scopes, dict(zip(names, (key, value)[-len(names) or 2 :], strict=False))])
            for key, value in pairs
        )

    def _pipe(self, words: Sequence[str], dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value: Any = None
        for i, command in enumerate(_split(words)):
            value = self._call(command, dot, scopes, [value] if i else [])
        return value

    def _call(self, words: list[str], dot: Any, scopes: list[dict[str, Any]], last: list[Any]) -> Any:
        head, *rest = words
        if head == ".Files.Get" or head.endswith(".Files.Get"):
            return self._value(head.removesuffix(".Get"), dot, scopes).get(*self._values(rest, dot, scopes))
        if head.endswith(".Files.Glob"):
            return self._value(head.removesuffix(".Glob"), dot, scopes).glob(*self._values(rest, dot, scopes))
        if re.fullmatch(r"[a-zA-Z]\w*", head) and head not in ("true", "false", "nil"):
            assert head in self._functions, f"function {head} is not rendered here"
            return self._functions[head](*self._values(rest, dot, scopes), *last)
        (value,) = self._values(words, dot, scopes)
        return value

    def _values(self, words: Sequence[str], dot: Any, scopes: list[dict[str, Any]]) -> list[Any]:
        values, at = [], 0
        while at < len(words):
            if words[at] == "(":
                end = _closing(words, at)
                values.append(self._pipe(words[at + 1 : end], dot, scopes))
                at = end + 1
            else:
                values.append(self._value(words[at], dot, scopes))
                at += 1
        return values

    def _value(self, word: str, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        if word.startswith('"'):
            return json.loads(word)
        if re.fullmatch(r"-?\d+", word):
            return int(word)
        if word in ("true", "false"):
            return word == "true"
        base, _, path = word.partition(".")
        value = dot if not base else next(scope[base] for scope in reversed(scopes) if base in scope)
        for name in filter(None, path.split(".")):
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
        return value


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    depth = 0
    command: list[str] = []
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "|" and not depth:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _closing(words: Sequence[str], at: int) -> int:
    depth = 0
    for i in range(at, len(words)):
        depth += (words[i] == "(") - (words[i] == ")")
        if not depth:
            return i
    raise AssertionError(f"no closing bracket: {' '.join(words)}")


def _true(value: Any) -> bool:
    return bool(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "<no value>" if value is None else str(value)


def _indent(width: int, text: str) -> str:
    return "\n".join(" " * width + line for line in text.split("\n"))


def _to_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=True, default_flow_style=False)).removesuffix("\n").removesuffix("\n...")


def _printf(shape: str, *values: Any) -> str:
    rest = iter(values)
    return re.sub(r"%[vsd]", lambda _: _text(next(rest)), shape)


def _merge(first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """As Sprig: what comes first wins, maps are merged, what is empty counts as not there."""
    merged = dict(first)
    for other in others:
        for name, value in other.items():
            if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
                merged[name] = _merge(merged[name], value)
            elif not _true(merged.get(name)):
                merged[name] = value
    return merged


def _functions() -> dict[str, Callable[..., Any]]:
    return {
        "and": lambda *values: next((value for value in values if not _true(value)), values[-1]),
        "append": lambda values, value: [*values, value],
        "base": lambda path: path.rpartition("/")[2],
        "contains": lambda part, text: part in text,
        "default": lambda usual, value: value if _true(value) else usual,
        "dict": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
        "div": lambda a, b: a // b,
        "eq": lambda a, b: a == b,
        "index": lambda value, *path: functools.reduce(lambda inner, name: inner[name], path, value),
        "int": int,
        "list": lambda *values: list(values),
        "merge": _merge,
        "ne": lambda a, b: a != b,
        "nindent": lambda width, text: "\n" + _indent(width, text),
        "not": lambda value: not _true(value),
        "or": lambda *values: next((value for value in values if _true(value)), values[-1]),
        "printf": _printf,
        "quote": lambda value: json.dumps(_text(value), ensure_ascii=False),
        "replace": lambda old, new, text: text.replace(old, new),
        "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
        "toYaml": _to_yaml,
        "trimSuffix": lambda end, text: text.removesuffix(end),
        "trunc": lambda length, text: text[:length],
        "upper": lambda text: text.upper(),
    }
