"""The partitioners give what the producers' own code gives."""

from __future__ import annotations

import zlib

from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from pipeline.partitioner import PARTITIONERS, murmur2


@given(st.binary(max_size=64))
def test_murmur2_is_the_java_producers(key: bytes) -> None:
    assert murmur2(key) == reference(key) & 0xFFFFFFFF


def test_crc32_is_librdkafkas_consistent_partitioner() -> None:
    assert PARTITIONERS["crc32"](b"pk_live_x", 7) == zlib.crc32(b"pk_live_x") % 7
