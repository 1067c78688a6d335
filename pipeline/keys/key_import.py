"""`keywatch keys import`: keys known elsewhere as catalogue entries, and the difference to what is declared.

Reads files that the operator exported with read-only credentials. Secrets are never asked for: columns and values that
look like one are refused with their name, and of Kong's key-auth credentials `key` is dropped unread.
Sources: our own CSV; Kong Admin API `/key-auths` and `/consumers`, or decK's state file as JSON; `aws apigateway
get-api-keys` (without `--include-values`) and `get-usage-plans` are JSON objects with `items`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from pipeline.errors import ConfigError
from pipeline.formats.values import environment
from pipeline.secrets import looks_secret
from schemas.key import BusinessHours, Key

Kind = Literal["csv", "kong", "aws"]

_SECRET_NAME: Final = re.compile(
    r"(?i)^(.*[_-])?(secret|token|password|passwd|private[_-]?key|api[_-]?key|key[_-]?value|credential|hash)s?$"
    r"|^key$|^value$"
)
_HASH_COLUMN: Final = "secret_hash"  # a keyed hash, no secret: `schemas.key.Key` takes no other form
_LISTS: Final = ("scopes", "allowed_networks", "allowed_countries")
_YES_NO: Final = ("protected", "decoy")
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
_HOURS: Final = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)(?: ([0-6](?:[,;]?[0-6])*))?")


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would do. `changed` has (before, after); `missing` are declared keys that the import lacks."""

    added: tuple[Key, ...] = ()
    changed: tuple[tuple[Key, Key], ...] = ()
    missing: tuple[Key, ...] = ()
    unchanged: int = 0

    def lines(self) -> Iterator[str]:
        """For people, one line a key: `+ id`, `~ id field: before -> after`, `? id` (not removed by an import)."""
        yield from (f"+ {key.key_id}" for key in self.added)
        for before, after in self.changed:
            words = (f"{name}: {old!r} -> {new!r}" for name, old, new in _differences(before, after))
            yield f"~ {after.key_id}  {'; '.join(words)}"
        yield from (f"? {key.key_id}  is declared but not in the import: left as it is" for key in self.missing)


def read_keys(path: Path, kind: Kind) -> list[Key]:
    """The keys of an export, by key id. Raises ConfigError that names line or entry, never a value."""
    readers: dict[str, Callable[[Path], list[Key]]] = {"csv": read_csv, "kong": read_kong, "aws": read_aws}
    if kind not in readers:
        raise ConfigError(f"unknown kind of import {kind!r}; known are {', '.join(readers)}")
    keys = sorted(readers[kind](path), key=lambda key: key.key_id)
    for one, two in pairwise(keys):
        if one.key_id == two.key_id:
            raise ConfigError(f"{path}: the key {one.key_id} stands there twice")
    return keys


def diff(current: Iterable[Key], wanted: Iterable[Key]) -> Changes:
    """What to write so that every wanted key is declared as wanted; nothing is removed."""
    have = {key.key_id: key for key in current}
    want = {key.key_id: _with_what_was_learned(key, have.get(key.key_id)) for key in wanted}
    both = [(have[key_id], key) for key_id, key in sorted(want.items()) if key_id in have]
    changed = tuple((before, after) for before, after in both if before != after)
    return Changes(
        added=tuple(key for key_id, key in sorted(want.items()) if key_id not in have),
        changed=changed,
        missing=tuple(key for key_id, key in sorted(have.items()) if key_id not in want),
        unchanged=len(both) - len(changed),
    )


def _with_what_was_learned(key: Key, before: Key | None) -> Key:
    """What an import can't know is not taken back by it: that the secret is public, unless it was made anew since."""
    if before is None or key.leaked_at or key.version != before.version:
        return key
    if key.secret_hash and before.secret_hash and key.secret_hash != before.secret_hash:
        return key  # made anew, though nobody counted its version
    return msgspec.structs.replace(
        key, leaked_at=before.leaked_at, leak_shown=before.leak_shown,
        secret_hash=key.secret_hash or before.secret_hash,
    )  # fmt: skip


def _differences(before: Key, after: Key) -> Iterator[tuple[str, Any, Any]]:
    for name in Key.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield name, old, new


def read_csv(path: Path) -> list[Key]:
    """Columns are fields of schemas.key.Key; lists are separated by blanks or `;`, hours are `08:00-19:00 01234`.

    A key of which the file does not say `protected = false` is protected: nothing acts on it by itself.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(reader.fieldnames or (), path)
            return [_key(_csv_fields(row, f"{path}, line {reader.line_num}"), f"{path}, line {reader.line_num}")
                    for row in reader]  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise ConfigError(f"{path}: not CSV in UTF-8") from None


def _check_columns(names: Sequence[str], path: Path) -> None:
    for name in names:
        if _SECRET_NAME.search(name.strip()) and name != _HASH_COLUMN:
            raise ConfigError(f"{path}: the column {name!r} is named like a secret; export it without, ids are enough")
    unknown = sorted(set(names) - set(Key.__struct_fields__))
    if unknown:
        raise ConfigError(f"{path}: unknown columns {', '.join(unknown)}; known are {', '.join(Key.__struct_fields__)}")
    if "key_id" not in names:
        raise ConfigError(f"{path}: the column key_id is missing")


def _csv_fields(row: Mapping[str | None, Any], where: str) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: more or fewer fields than columns")
    texts = {str(name): str(value).strip() for name, value in row.items()}
    fields: dict[str, Any] = {"protected": True} | {name: value for name, value in texts.items() if value}
    for name in _LISTS:
        fields[name] = tuple(re.split(r"[;\s]+", texts.get(name, ""))) if texts.get(name) else ()
    for name in {name for name, value in texts.items() if value} & set(_YES_NO):
        if texts[name].lower() not in _TRUTH:
            raise ConfigError(f"{where}: {name} must be true or false")
        fields[name] = _TRUTH[texts[name].lower()]
    if "business_hours" in fields:
        fields["business_hours"] = _hours(texts["business_hours"], where)
    return fields


def _hours(text: str, where: str) -> BusinessHours:
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ConfigError(f"{where}: business_hours must look like 08:00-19:00 01234 (Monday is 0)")
    start_h, start_min, end_h, end_min, days = match.groups()
    weekdays = tuple(int(day) for day in re.findall(r"\d", days or "01234"))
    start, end = int(start_h) * 60 + int(start_min), int(end_h) * 60 + int(end_min)
    if not 0 <= start < end <= 1440:
        raise ConfigError(f"{where}: business_hours must begin before they end, on one day")
    return BusinessHours(start_min=start, end_min=end, weekdays=weekdays)


def _key(fields: Mapping[str, Any], where: str) -> Key:
    """The checked key. Raises ConfigError with the field's name and rule, without its value."""
    for name, value in fields.items():
        if isinstance(value, str) and looks_secret(value):
            raise ConfigError(f"{where}: {name} looks like a secret; only public ids and names may be imported")
    try:
        return msgspec.convert(dict(fields), Key, strict=False)
    except msgspec.ValidationError as error:
        words = re.sub(r"(?s)enum value .* - at", "value - at", str(error))  # msgspec quotes the value only there
        raise ConfigError(f"{where}: {words}") from None


def _json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON") from None


def read_kong(path: Path) -> list[Key]:
    """Credentials of the Admin API (`data`) or of decK (`keyauth_credentials` within `consumers`, or beside them)."""
    document = _json(path)
    entries = document if isinstance(document, list) else [document]
    consumers = [each for entry in entries for each in _items(entry, "consumers")]
    names = {str(each.get("id")): each for each in consumers}
    keys: list[Key] = []
    for number, (credential, consumer) in enumerate(_credentials(entries, consumers), 1):
        owner = names.get(str(_get(credential, "consumer", "id")), consumer)
        keys.append(_kong_key(credential, owner, f"{path}, credential {number}"))
    return keys


def _credentials(entries: Sequence[Any], consumers: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for consumer in consumers:
        yield from ((each, consumer) for each in _items(consumer, "keyauth_credentials"))
    for entry in entries:
        yield from ((each, {}) for each in (*_items(entry, "keyauth_credentials"), *_items(entry, "data")))


def _items(entry: Any, name: str) -> list[Any]:
    found = entry.get(name) if isinstance(entry, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _get(entry: Any, outer: str, inner: str) -> Any:
    nested = entry.get(outer)
    return nested.get(inner) if isinstance(nested, dict) else nested


def _kong_key(credential: Mapping[str, Any], consumer: Mapping[str, Any], where: str) -> Key:
    """A credential without an id can't be told from another: decK leaves ids out unless asked (`--with-id`)."""
    if not credential.get("id"):
        raise ConfigError(f"{where}: has no id; dump with `deck gateway dump --with-id`")
    tags = _texts(credential.get("tags"))
    owner = str(consumer.get("username") or consumer.get("custom_id") or "")[:128]
    ended = credential.get("ttl") == 0
    return _key(
        {"key_id": str(credential["id"]), "owner": owner, "created_at": _rfc3339(credential.get("created_at")),
         "environment": _environment(tags), "status": "expired" if ended else "active", "protected": True},
        where,
    )  # fmt: skip


def read_aws(path: Path) -> list[Key]:
    """`items` of get-api-keys. Raises ConfigError if the export holds values (`--include-values`)."""
    keys: list[Key] = []
    for number, item in enumerate(_items(_json(path), "items"), 1):
        where = f"{path}, item {number}"
        if item.get("value"):
            raise ConfigError(f"{where}: holds the key itself; export again without --include-values")
        keys.append(_aws_key(item, where))
    return keys


def _aws_key(item: Mapping[str, Any], where: str) -> Key:
    tags = item.get("tags") if isinstance(item.get("tags"), dict) else {}
    stages = [str(stage).rpartition("/")[2] for stage in _texts(item.get("stageKeys"))]
    return _key(
        {"key_id": str(item.get("id") or ""), "owner": str((tags or {}).get("owner") or item.get("name") or "")[:128],
         "created_at": _rfc3339(item.get("createdDate")), "environment": _environment(stages),
         "status": "active" if item.get("enabled", True) else "suspended", "protected": True},
        where,
    )  # fmt: skip


def _environment(words: Iterable[str]) -> str:
    """live where anything says so; test only where nothing else is said."""
    named = {environment(word) for word in words}
    return "live" if "live" in named else "test" if "test" in named else ""


def _rfc3339(value: Any) -> str:
    """Epoch seconds (Kong, aws with `--output json` of old) or RFC 3339 text, as RFC 3339 UTC; "" where unknown."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(str(value))
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment.tzinfo else ""
    except (ValueError, OverflowError, OSError):
        return ""
