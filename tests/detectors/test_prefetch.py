"""detectors/prefetch.py: what is asked for is the whole record of the next event's key, and nothing else."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from detectors import prefetch as prefetching
from detectors.prefetch import LINE, fetch_next, prefetch

EVENTS = np.zeros(3, np.dtype([("slot", "i4")]))
EVENTS["slot"] = (0, -1, 1)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="plain Python has nobody to ask")  # type: ignore[attr-defined]
@pytest.mark.parametrize("lines", [1, 2, 29])
def test_each_line_of_a_record_is_asked_for_once(lines: int) -> None:
    @numba.njit
    def ask(keys: Any) -> None:
        prefetch(keys[0])

    ask(np.zeros(2, np.dtype([("state", "u1", (LINE * lines - 8,))])))
    [text] = ask.inspect_llvm().values()
    assert text.count("call void @llvm.prefetch") == lines


@pytest.mark.parametrize(("i", "asked"), [(0, []), (1, [8]), (2, [])])
def test_the_next_event_s_key_is_asked_for_if_there_is_one(
    i: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[int] = []
    monkeypatch.setattr(prefetching, "prefetch", took.append)
    plain = getattr(fetch_next, "py_func", fetch_next)
    plain([7, 8], EVENTS.view(np.recarray), i)
    assert took == asked
