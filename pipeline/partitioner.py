"""Which partition a key belongs to, as the producers decide it: Java's murmur2 or librdkafka's crc32."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Kafka's murmur2 (org.apache.kafka.common.utils.Utils), unsigned 32 bits."""
    h = (0x9747B28C ^ len(key)) & _MASK
    body = len(key) & ~3
    for at in range(0, body, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    if tail := key[body:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def _murmur2(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def _crc32(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions


def moved(requests: str, before: int, now: int) -> str:
    """What to say, and to do, where a topic's number of partitions is no longer the one that state was kept for."""
    return (
        f"{requests} has {now} partitions, the state in the pages topic is of {before}: with another number a key's "
        "events lie on another partition than what is known of it. Stop producers and all workers, then "
        f"`keywatch state export FILE` and `keywatch state import FILE --partitions {now}` "
        "(deploy/RUNBOOK.md, Partition change)"
    )


PARTITIONERS: Final[dict[str, Callable[[bytes, int], int]]] = {"murmur2": _murmur2, "crc32": _crc32}
"""name -> (key, number of partitions) -> partition."""
