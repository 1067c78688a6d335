"""The Native block: what the client's own reader makes of it is what went in, whatever kind of column it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.buffer import ResponseBuffer
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.column import Coded, Column, coded
from pipeline.sinks import native
from schemas.rows import TABLES
from tests.row_examples import rows_of


class Source:
    """A response body as the client's buffer wants it."""

    def __init__(self, raw: bytes) -> None:
        self.gen = iter([raw])
        self.last_message = b""

    def close(self) -> None:
        """Nothing to release."""


def read(kind: str, column: Column) -> list[Any]:
    """The column as it arrives."""
    raw = native.block(["c"], [kind], [column])
    buffer: Any = ResponseBuffer  # it has no types
    result: Any = NativeTransform.parse_response(buffer(Source(raw)))
    return [row[0] for row in result.result_rows]


TEXTS = st.text(max_size=12) | st.sampled_from(["a" * 127, "a" * 128, "b" * 20_000, "é" * 64])


@settings(max_examples=30)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_texts_arrive_long_or_short_and_in_any_script(texts: list[str]) -> None:
    for kind in ("String", "LowCardinality(String)"):
        assert read(kind, texts) == texts
        assert read(kind, coded(texts)) == texts


@pytest.mark.parametrize("distinct", [1, 255, 256, 257, 65_536, 65_537])
def test_a_dictionary_of_any_size_has_indices_that_reach(distinct: int) -> None:
    texts = [str(n) for n in range(distinct)]
    assert read("LowCardinality(String)", texts) == texts


@pytest.mark.parametrize("kind", ["UInt8", "UInt16", "UInt32", "UInt64", "Int64", "Float32", "Float64"])
def test_numbers_arrive_from_lists_and_from_arrays(kind: str) -> None:
    assert read(kind, [0, 1, 100]) == read(kind, np.array([0, 1, 100])) == [0, 1, 100]


def test_a_number_that_does_not_fit_is_an_error_and_not_another_number() -> None:
    for kind, number in (("UInt8", 256), ("UInt64", -1), ("UInt32", 1 << 32)):
        for column in ([number], np.array([number])):
            with pytest.raises(OverflowError):
                native.block(["c"], [kind], [column])
    with pytest.raises(OverflowError):
        native.block(["c"], ["UInt8"], [np.array([1.5])])


def test_latencies_arrive_as_a_table_and_as_lists() -> None:
    table = np.arange(6, dtype=np.uint32).reshape(2, 3)
    assert read("Array(UInt32)", table) == read("Array(UInt32)", table.tolist()) == [[0, 1, 2], [3, 4, 5]]


def test_addresses_travel_as_their_sixteen_bytes() -> None:
    texts = ["", "192.0.2.7", "2001:db8::1", "::ffff:198.51.100.1", "192.0.2.7"]
    raw = native.block(["c"], ["IPv6"], [texts])
    assert b"FixedString(16)" in raw
    assert native.block(["c"], ["IPv6"], [Coded(np.array([0, 1, 2, 3, 1]), texts)]) == raw
    assert raw.endswith(native.MAPPED + bytes([192, 0, 2, 7]))


def test_every_kind_of_every_table_can_be_written() -> None:
    for table, declared in TABLES.items():
        rows = rows_of(table, 2)
        block = native.block(list(rows), [kind for _, kind in declared], list(rows.values()))
        assert all(name.encode() in block for name in rows), table
