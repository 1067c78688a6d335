"""Protobuf's varint: seven bits a byte, the lowest first, the eighth says that another follows."""

from __future__ import annotations

from pipeline.formats.format import BadValueError


def varint(raw: bytes | memoryview, at: int, broken: str) -> tuple[int, int]:
    """An unsigned 64-bit number and where it ends. Raises BadValueError, with that text, where there is none."""
    value = shift = 0
    while at < len(raw) and shift < 70:
        byte = raw[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise BadValueError(broken)
