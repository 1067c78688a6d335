"""Every input format: what it reads, where the id of a key comes from, what it leaves blind."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Final

import schemas
from pipeline.formats import FORMATS, Format, Options
from pipeline.intake.provenance import sources
from pipeline.intake.sample import BLIND
from pipeline.reference.words import table
from schemas.event import Event

HEAD: Final = """# Input formats

`intake.format`, `keywatch intake --format NAME`, `keywatch replay --format NAME`. `keywatch doctor --sample FILE` names
the format of a log of yours and shows how its fields map; `schemas/examples/formats/` has records of each with what
becomes of them. All but `combined` are JSON: an object, an array, lines, objects that run together, gzip, or any of
these inside the envelopes of Firehose, Kinesis, CloudWatch, EventBridge, CloudTrail's files, OTLP (a log record's
attributes, and its body where that is an object) or CloudEvents. `"-"`, `""` and null are missing values, numbers may
be strings, queries are cut off paths. Avro and Protobuf under a schema registry's ids are read with
`intake.registry_url` (`pip install '.[registry]'` in a checkout). "Of the record" is seen by leaving out one field
after the other.

"""
EXAMPLES: Final = Path(inspect.getfile(schemas)).parent / "examples" / "formats"
WHOLE: Final = ("object", "nested", "record")
"""Examples that have all a format can say."""
FIELDS: Final = tuple(name for name in Event.__struct_fields__ if name not in ("outcome", "source", "position", "v"))


def page() -> str:
    """Markdown."""
    return HEAD + "\n".join(f"## {name}\n\n{_section(format)}" for name, format in FORMATS.items())


def _section(format: Format) -> str:
    first, _, rest = inspect.cleandoc(sys.modules[format.event.__module__].__doc__ or "").partition("\n\n")
    blind = "; ".join(words for bit, words in BLIND if not format.sees & bit)
    tells = f"It does not tell {blind}." if blind else "It tells all that the detectors use."
    read = f"Key id: {format.key}. Address: {format.address}. {tells}"
    return "\n\n".join([first, read, f"```text\n{rest}\n```", *_mapping(format)]) + "\n"


def _mapping(format: Format) -> list[str]:
    """Event field and the record's, seen in the example that has most; formats of text lines have no fields."""
    found: dict[str, str] = {}
    for name in WHOLE:
        path = EXAMPLES / format.name / f"{name}.json"
        if path.exists():
            found |= sources(path.read_bytes(), format.name, FIELDS, Options())
    rows = [(f"`{field}`", f"`{found[field]}`") for field in FIELDS if field in found]
    return [table(("field", "of the record"), rows).rstrip()] if rows else []
