"""Path -> route template, where the gateway gives none: what names one object becomes a placeholder.

`/v1/users/4711/files/9f86d081884c7d65` -> `/v1/users/{id}/files/{hex}`. The rules look at one segment only, so the
same path gives the same template for ever. They miss ids that are words (`/users/alice`): a gateway's own route is
better, and detectors hold the number of routes per key bounded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import numpy as np

from pipeline import spans
from pipeline.column import Coded
from pipeline.fields import coded

Array = np.ndarray[Any, Any]

MOST_SEGMENTS: Final = 8
LONGEST: Final = 256
"""Of a template, as of `Event.route`."""
LONG_SEGMENT: Final = 40
MANY_DIGITS: Final = 4

RULES: Final = (
    (re.compile(r"\d+"), "{id}"),
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "{uuid}"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?"), "{date}"),
    (re.compile(r"\d{1,3}(?:\.\d{1,3}){3}"), "{ip}"),
    (re.compile(r"(?:0x)?(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}"), "{hex}"),
    (re.compile(r"[^@/]++@[^@/](?=[^@/]*\.[^@/])[^@/]++"), "{email}"),
    (re.compile(r"arn:.*"), "{arn}"),
    (re.compile(r"(?=.*\d.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9.~+=]{16,}"), "{token}"),
    (re.compile(r"[+-]?\d+(?:\.\d+)+|[+-]\d+"), "{number}"),
)
"""(a whole segment, its placeholder); the first that fits."""
VERSION: Final = re.compile(r"v\d{1,3}(?:[.-]?\w{0,8})?")
PREFIXED: Final = re.compile(r"([A-Za-z][A-Za-z]{0,15}[_-])(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{4,}")
"""`cus_9s6XKzkNRiz8i3`, `order-10023`: the prefix is a kind of object and stays."""


def with_fewer_ids(data: Array, starts: Array, lengths: Array) -> Coded[str]:
    """Paths (spans, as in `spans.py`) with the same templates, but fewer different ones: the first rules, compiled."""
    out = np.zeros(3 * int(lengths.sum()) + 6 * len(lengths) + spans.PADDING, np.uint8)
    begins, sizes = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    spans.shorten(data, starts, lengths, out, begins, sizes)
    return coded(out, begins, sizes)


def template(path: str) -> str:
    """The route of a path, without query; "" for no path."""
    bare = path.partition("?")[0].partition("#")[0]
    if not bare:
        return ""
    segments = [part for part in bare.split("/") if part]
    kept = [placeholder(part) for part in segments[:MOST_SEGMENTS]]
    if len(segments) > MOST_SEGMENTS:
        kept.append("{rest}")
    return ("/" + "/".join(kept))[:LONGEST]


def placeholder(segment: str) -> str:
    """The segment itself where it is a word of the API, else what it stands for."""
    return "{id}" if segment.isdecimal() else _placeholder(segment)


@lru_cache(maxsize=1 << 14)  # words recur, and trying every rule on one takes 4 us
def _placeholder(segment: str) -> str:
    text = unquote(segment) if "%" in segment else segment
    for pattern, name in RULES:
        if pattern.fullmatch(text):
            return name
    if VERSION.fullmatch(text):
        return text
    prefixed = PREFIXED.fullmatch(text)
    if prefixed:
        return prefixed.group(1) + "{id}"
    if len(text) > LONG_SEGMENT:
        return "{long}"
    if sum(letter.isdigit() for letter in text) >= MANY_DIGITS:
        return "{id}"
    return segment if text.isprintable() else "{long}"
