"""The configuration from TOML and KEYWATCH_* variables, and back to TOML.

KEYWATCH_KAFKA__BROKERS=... overrides kafka.brokers; KEYWATCH_CLICKHOUSE__PASSWORD_FILE=... reads a secret from a
file, and so does `password_file` in the TOML. What is wrong is a ConfigError that names the setting and says what
would be right.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from pipeline.config import night as config_night
from pipeline.config.policy import Policy
from pipeline.config.tree import Config, Revocation, Secret
from pipeline.errors import ConfigError

PREFIX: Final = "KEYWATCH_"
Tree = dict[str, Any]


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration from a TOML file (or `KEYWATCH_CONFIG`, or none) and KEYWATCH_* variables. Raises ConfigError.

    Variables without a double underscore (KEYWATCH_CONFIG, KEYWATCH_FAULT, ...) are no settings.
    """
    named = environ.get("KEYWATCH_CONFIG", "")
    file = path or (Path(named) if named else None)
    tree = _read_toml(file) if file else {}
    for name in sorted(environ):
        if name.startswith(PREFIX) and "__" in name:
            _override(tree, name, environ[name])
        elif name.startswith(PREFIX):
            _refuse_single_underscore(name)
    return build(tree)


def build(tree: Tree) -> Config:
    """The checked configuration of a tree of plain values. Raises ConfigError."""
    _refuse_unknown(tree, Config, "")
    _read_secret_files(tree, Config, "")
    try:
        config = msgspec.convert(tree, Config, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        words, _, where = str(error).replace("`", "").partition(" - at $.")
        raise ConfigError(f"{where or 'config'}: {words[:1].lower()}{words[1:]}") from error
    _check_together(config)
    return config


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"config file {path}: nested too deeply") from None


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError("expected a text")


def _fields(kind: Any) -> dict[str, Any]:
    """Name -> type of a Struct's fields; empty for anything else."""
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return {field.name: field.type for field in msgspec.structs.fields(kind)} if is_struct else {}


def _parts(value: Any, kind: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """The tables below a value that are Structs: (value, its Struct, where)."""
    inner = get_args(kind)[0] if getattr(kind, "__origin__", None) is tuple else kind
    for at, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
        if isinstance(item, dict) and _fields(inner):
            yield item, inner, where if at is None else f"{where}[{at}]"


def _refuse_unknown(tree: Tree, kind: Any, where: str) -> None:
    fields = _fields(kind)
    for name, value in tree.items():
        full = f"{where}.{name}".lstrip(".")
        if name not in fields and not _is_secret_file(name, fields):
            raise ConfigError(f"unknown setting {full}{_suggestion(name, fields)}")
        for item, inner, at in _parts(value, fields.get(name), full):
            _refuse_unknown(item, inner, at)


def _suggestion(name: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, fields, 1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(fields)}"


def _is_secret_file(name: str, fields: Mapping[str, Any]) -> bool:
    return name.endswith("_file") and fields.get(name.removesuffix("_file")) is Secret


def _read_secret_files(tree: Tree, kind: Any, where: str) -> None:
    """Replace every `x_file` of a secret x by the file's content."""
    fields = _fields(kind)
    for name in list(tree):
        full = f"{where}.{name}".lstrip(".")
        if name not in fields:
            tree[name.removesuffix("_file")] = _read_secret(tree.pop(name), full)
            continue
        for item, inner, at in _parts(tree[name], fields[name], full):
            _read_secret_files(item, inner, at)


def _read_secret(path: Any, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, TypeError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = getattr(error, "strerror", None) or "is no text file"
        raise ConfigError(f"{where}: {path} {reason}") from error


def _override(tree: Tree, variable: str, text: str) -> None:
    """Put one variable's value where its name says. Raises ConfigError for a name that is no setting."""
    *sections, name = variable.removeprefix(PREFIX).lower().split("__")
    kind: Any = Config
    for section in sections:
        kind = _fields(kind).get(section)
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{section}: expected a table")
    fields = _fields(kind)
    if name not in fields and not _is_secret_file(name, fields):
        raise ConfigError(f"{variable} is no setting{_suggestion(name, fields) if fields else ''}")
    if name in fields and fields[name] is not Secret:
        tree[name] = _parse(variable, text, fields[name])
    else:
        tree.pop(name.removesuffix("_file"), None)
        tree[name] = text


def _refuse_single_underscore(variable: str) -> None:
    """KEYWATCH_KAFKA_BROKERS would be ignored in silence, and the worker go to localhost. Raises ConfigError."""
    section, _, name = variable.removeprefix(PREFIX).lower().partition("_")
    fields = _fields(_fields(Config).get(section))
    if name in fields or _is_secret_file(name, fields):
        meant = f"{PREFIX}{section.upper()}__{name.upper()}"
        raise ConfigError(f"{variable} is no setting; did you mean {meant} (two underscores)?")


def _parse(variable: str, text: str, kind: Any) -> Any:
    """A variable's text as its setting's type; lists are separated by commas, tables are JSON."""
    try:
        wants_text = getattr(kind, "__origin__", kind) is str  # [2001:db8::1]:9093 is no list
        if text and text[0] in "[{" and not wants_text:
            return msgspec.json.decode(text)
        value: Any = [part.strip() for part in text.split(",") if part.strip()] if "tuple" in str(kind) else text
        return msgspec.to_builtins(msgspec.convert(value, kind, strict=False))
    except RecursionError:
        raise ConfigError(f"{variable}: nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{variable}: {str(error).replace('`', '')}") from error


def _check_together(config: Config) -> None:
    """What only shows when settings are seen side by side. Raises ConfigError."""
    kafka, respond = config.kafka, config.respond
    for broker in kafka.brokers.split(","):
        if not _is_address(broker.strip()):
            raise ConfigError(f"kafka.brokers: '{broker.strip()}' is not HOST:PORT")
    if (scheme := config.clickhouse.url.partition("://")[0]) not in ("http", "https", "chdb"):
        raise ConfigError(f"clickhouse.url begins with '{scheme}': expected http://, https:// or chdb:///folder")
    _check_apart(config)
    if kafka.heartbeat_s * 2 >= kafka.session_timeout_s:
        raise ConfigError("kafka.heartbeat_s must be less than half of kafka.session_timeout_s")
    if kafka.security.startswith("SASL") and not kafka.username:
        raise ConfigError(f"kafka.security is {kafka.security}: kafka.username and kafka.password are needed")
    if bool(kafka.cert_file) != bool(kafka.key_file):
        raise ConfigError("kafka.cert_file and kafka.key_file go together: a certificate is of no use without its key")
    if kafka.cert_file and not kafka.security.endswith("SSL"):
        raise ConfigError(f"kafka.cert_file is of no use with kafka.security {kafka.security}: set SSL or SASL_SSL")
    if config.budget.page > config.budget.listed:
        raise ConfigError("budget.page must not be above budget.listed: what pages is listed, too")
    names = [endpoint.name for endpoint in respond.endpoints]
    if len(set(names)) < len(names):
        raise ConfigError("respond.endpoints: every endpoint needs a name of its own")
    if (respond.rules or respond.policy != Policy()) and respond.revocation != Revocation():
        raise ConfigError("respond.revocation is the old form of respond.policy and respond.rules: keep one of them")
    for endpoint in respond.endpoints:
        config_night.check(endpoint)
    if respond.revocation.mode == "enforce" and respond.revocation.endpoint not in names:
        raise ConfigError("respond.revocation.endpoint must name one of respond.endpoints where the mode is enforce")


def _check_apart(config: Config) -> None:
    """No topic has two uses: intake would read what it writes, state would lie between events. No group has two
    kinds of members: Kafka lets the first in and refuses the others, again and again. Raises ConfigError.
    """
    topics = {f"topics.{name}": getattr(config.topics, name) for name in config.topics.__struct_fields__}
    workers, responders = config.kafka.group, config.respond.group
    groups = {
        "kafka.group": workers,
        "the group of --topology sources": f"{workers}-sources",
        "the group of --topology lifecycle": f"{workers}-lifecycle",
        "respond.group": responders,
        "the group of the audit": f"{responders}-audit",
        "intake.group": config.intake.group,
    }
    for named in (topics, groups):
        first: dict[str, str] = {}
        for setting, name in named.items():
            if (other := first.setdefault(name, setting)) != setting:
                raise ConfigError(f"{other} and {setting} are both '{name}': each needs a name of its own")


def _is_address(text: str) -> bool:
    """HOST:PORT, or HOST alone for Kafka's usual port; IPv6 addresses in brackets."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(\d{1,5}))?", text)
    return found is not None and 0 < int(found[2] or 1) <= 65_535


def show(config: Config, redacted: bool = True) -> str:
    """The whole configuration as TOML, defaults included; secrets as stars unless asked otherwise."""
    return "\n".join(_toml(_plain(config, redacted), "")).strip() + "\n"


def _plain(value: Any, redacted: bool) -> Any:
    if isinstance(value, Secret):
        return "********" if redacted and value.reveal() else value.reveal()
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name), redacted) for name in value.__struct_fields__}
    return [_plain(item, redacted) for item in value] if isinstance(value, tuple) else value


def _toml(tree: Tree, name: str) -> Iterator[str]:
    """Lines of one table: its values, then its tables."""
    tables = {key: value for key, value in tree.items() if isinstance(value, dict)}
    lists = {
        key: value for key, value in tree.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    for key, value in tree.items():
        if key not in tables and key not in lists:
            yield f"{key} = {msgspec.json.encode(value).decode()}"
    for key, value in tables.items():
        yield from ("", f"[{name}{key}]", *_toml(value, f"{name}{key}."))
    for key, values in lists.items():
        for value in values:
            yield from ("", f"[[{name}{key}]]", *_toml(value, f"{name}{key}."))


def schema() -> dict[str, Any]:
    """JSON Schema of the file; secrets are texts in it, each may be given as `<name>_file` instead."""
    return msgspec.json.schema(_without_secrets(Config))


@functools.cache  # one type for one type: two of one name would be taken for each other
def _without_secrets(kind: Any) -> Any:
    """The same Struct with texts for secrets: msgspec describes no types of others."""
    if kind is Secret:
        return str
    if getattr(kind, "__origin__", None) is tuple:
        return tuple[_without_secrets(get_args(kind)[0]), ...]  # type: ignore[misc]
    if not _fields(kind):
        return kind
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        plain = _without_secrets(field.type)
        if _fields(field.type) or field.default_factory is not msgspec.NODEFAULT:
            made = plain if _fields(field.type) else field.default_factory
            fields.append((field.name, plain, msgspec.field(default_factory=made)))
        elif field.default is msgspec.NODEFAULT:
            fields.append((field.name, plain))
        else:
            fields.append((field.name, plain, "" if field.type is Secret else field.default))
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, forbid_unknown_fields=True)
