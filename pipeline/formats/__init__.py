"""Input formats: one file per gateway's log, which maps it to the event and declares what it can say at all."""

from __future__ import annotations

from pipeline.formats.files import expand, place, read_file, read_files
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
    "expand",
    "place",
    "read_file",
    "read_files",
    "sees_of",
]
