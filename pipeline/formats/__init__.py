"""Input formats: one file per gateway's log, which maps it to the event and declares what it can say at all."""

from __future__ import annotations

from pipeline.formats.files import place, read_file
from pipeline.formats.format import Format, Options, Refused
from pipeline.formats.registry import FORMATS, decode, decode_line, detect, sees_of

__all__ = [
    "FORMATS",
    "Format",
    "Options",
    "Refused",
    "decode",
    "decode_line",
    "detect",
    "place",
    "read_file",
    "sees_of",
]
