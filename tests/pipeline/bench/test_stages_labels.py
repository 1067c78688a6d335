"""Buckets are read by their bound, whatever other label ends with the same letters."""

from __future__ import annotations

from pipeline.bench.stages import buckets


def test_a_label_named_table_is_no_bound() -> None:
    text = 'keywatch_x_bucket{le="0.5",table="adoptions"} 3.0\nkeywatch_x_bucket{kind="a",le="1.0"} 4.0\n'
    assert buckets(text) == {"keywatch_x": {0.5: 3.0, 1.0: 4.0}}
