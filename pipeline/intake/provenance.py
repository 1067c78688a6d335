"""From which field of a log's record each field of its event came: seen by leaving out one after the other.

No format has to say it of itself, and none can say it wrongly. Formats of text lines have no fields to name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from pipeline.formats import FORMATS, Options, Refused
from pipeline.formats.envelope import json_records
from pipeline.formats.format import BadValueError, Format
from pipeline.formats.registry import as_read
from pipeline.formats.values import is_raw_key_field
from schemas.event import Event

MOST_RECORDS: Final = 20
"""So many records are looked at until each field has been in one of them: each is read once for each of its fields."""
MOST_FIELDS: Final = 200

Path = tuple[str, ...]


def sources(raw: bytes, name: str, fields: Sequence[str], options: Options) -> dict[str, str]:
    """Event field -> names in the record ("request.method"), of the first record that has it; absent: not known."""
    format = FORMATS[name]
    found: dict[str, str] = {}
    if format.lines:
        return found
    for record, _ in zip(json_records(raw), range(MOST_RECORDS), strict=False):
        wanted = [field for field in fields if field not in found]
        if isinstance(record, dict) and wanted:
            found |= _of_record(as_read(record, format), format, wanted, options)
    return found


def fields_of_raw_keys(raw: bytes, name: str) -> list[str]:
    """Fields of the first records by whose names the key itself stands there, as `intake.key_field` takes them."""
    format, found = FORMATS[name], dict[str, None]()
    for record, _ in zip(() if format.lines else json_records(raw), range(MOST_RECORDS), strict=False):
        if isinstance(record, dict):
            read = as_read(record, format)
            leaves = islice(_leaves(read["attributes"] if format.name == "otel" else read), MOST_FIELDS)
            found |= {path: None for each in leaves if is_raw_key_field(path := ".".join(each))}
    return list(found)


def _of_record(record: dict[str, Any], format: Format, fields: Sequence[str], options: Options) -> dict[str, str]:
    whole = _event(record, format, options)
    if isinstance(whole, str):
        return {}
    found: dict[str, list[str]] = {}
    for path, _ in zip(_leaves(record), range(MOST_FIELDS), strict=False):
        for field in _changed(whole, _event(_without(record, path), format, options), fields):
            found.setdefault(field, []).append(".".join(path))
    return {field: " and ".join(names) for field, names in found.items()}


def _event(record: dict[str, Any], format: Format, options: Options) -> Event | Refused | str:
    """The event, or the words of a value that makes it none."""
    try:
        return format.event(record, options)
    except BadValueError as error:
        return str(error)


def _changed(whole: Event | Refused, less: Event | Refused | str, fields: Sequence[str]) -> Iterator[str]:
    if isinstance(less, str):
        yield from (field for field in ("ts_us",) if field in fields and less.startswith("the time"))
    elif isinstance(whole, Event) and isinstance(less, Event):
        yield from (field for field in fields if getattr(whole, field) != getattr(less, field))
    elif isinstance(less, Refused) and less.reason == "no_key" and "key_id" in fields:
        yield "key_id"


def _leaves(record: dict[str, Any], above: Path = ()) -> Iterator[Path]:
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _without(record: dict[str, Any], path: Path) -> dict[str, Any]:
    name, *below = path
    if not below:
        return {each: value for each, value in record.items() if each != name}
    return {**record, name: _without(record[name], tuple(below))}
