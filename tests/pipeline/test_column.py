"""Columns: whatever kind they are, they hold the values that they were made of."""

from __future__ import annotations

from itertools import chain
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.column import MANY, Coded, coded, constant, count, join_rows, joined, joint, plain

TEXTS = st.lists(st.sampled_from(["", "a", "b", "long" * 50, "é"]), max_size=20)


@given(TEXTS)
def test_codes_stand_for_the_texts(texts: list[str]) -> None:
    column = coded(texts)
    assert list(column) == texts == [column[i] for i in range(len(column))]
    assert len(set(column.values)) == len(column.values)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_codes_of_different_tables_are_joined_to_one(parts: list[list[str]]) -> None:
    whole = joined([coded(part) for part in parts])
    assert isinstance(whole, Coded)
    assert plain(whole) == list(chain.from_iterable(parts))


def test_codes_of_one_table_are_joined_without_looking_at_it() -> None:
    values = ["x", "y"]
    whole = joined([Coded(np.array([1]), values), Coded(np.array([0, 1]), values)])
    assert isinstance(whole, Coded)
    assert whole.values is values
    assert list(whole) == ["y", "x", "y"]


def test_kinds_may_be_mixed_and_what_was_handed_in_stays() -> None:
    mine = ["a"]
    assert joined([mine, coded(["b"]), ("c",)]) == ["a", "b", "c"]
    assert mine == ["a"]
    assert plain(joined([np.array([1, 2]), np.array([3])])) == [1, 2, 3]


@pytest.mark.parametrize("values", [10, 2 * MANY])
def test_only_what_occurs_is_kept_be_the_table_small_or_large(values: int) -> None:
    column = Coded(np.array([7, 3, 7]), [str(n) for n in range(values)]).distinct()
    assert list(column) == ["7", "3", "7"]
    assert sorted(column.values) == ["3", "7"]


class Asked(Coded[str]):
    """Counts how often somebody asks for a table of texts."""

    times = 0

    @property  # type: ignore[override]
    def values(self) -> list[str]:
        Asked.times += 1
        return self.table

    @values.setter
    def values(self, values: list[str]) -> None:
        self.table = values


def test_to_join_many_parts_with_a_table_each_takes_no_look_at_all_parts_for_each() -> None:
    """Rows that waited while ClickHouse was away are thousands of parts: 6,400 took 1.2 s a column, of 0.03."""
    parts = [Asked(np.array([1, 0, 1]), [f"v{n % 7}", "w"]) for n in range(500)]
    Asked.times = 0
    assert list(joined(parts))[:4] == ["w", "v0", "w", "w"]
    assert Asked.times < 10 * len(parts)


def test_rows_are_counted_and_joined_column_by_column() -> None:
    rows = join_rows([{"n": [1, 2], "t": constant("x", 2)}, {"n": [3], "t": constant("y", 1)}])
    assert count(rows) == 3
    assert [list(plain(column)) for column in rows.values()] == [[1, 2, 3], ["x", "x", "y"]]


@given(st.integers(0, 30), st.lists(st.sampled_from([1, 2, 3, 9_000]), min_size=1, max_size=4), st.randoms())
def test_columns_side_by_side_are_one_of_tuples(n: int, sizes: list[int], random: Random) -> None:
    columns = [Coded(np.array([random.randrange(size) for _ in range(n)], np.intp), range(size)) for size in sizes]
    found = joint(columns)
    assert list(found) == list(zip(*columns, strict=True))
    assert sorted(found.values) == sorted(set(found))
