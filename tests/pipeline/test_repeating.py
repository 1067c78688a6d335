"""A command that repeats itself runs at once, goes on after trouble that passes, and ends when it is told to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import ConfigError, Retry
from pipeline.repeating import AGAIN_S, repeated, span_s


class Clock(threading.Event):
    """An event that nobody waits for: it notes how long it was to be, and is set after `most` waits."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.most = most

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return len(self.waits) >= self.most


def test_once_where_no_span_is_given() -> None:
    assert span_s("") == 0
    assert repeated(lambda: 3, span_s("")) == 3
    with pytest.raises(ConfigError, match="--every"):
        span_s("daily")


def test_trouble_that_passes_is_tried_again_soon_and_anything_else_ends_it() -> None:
    answers: Iterator[int | Exception] = iter([0, Retry("away"), 0, Retry("away"), ConfigError("no such user")])

    def run() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = Clock(most=9)
    with pytest.raises(ConfigError, match="no such user"):
        repeated(run, span_s("1d"), clock)
    assert clock.waits == [86_400, AGAIN_S, 86_400, AGAIN_S]
    assert repeated(lambda: 1, 60.0, Clock(most=1)) == 1


def test_it_ends_at_once_when_it_is_told_to_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert repeated(run, 86_400.0) == 0
    signal.signal(signal.SIGTERM, before)
