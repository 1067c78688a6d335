"""A command of once a day that runs for ever, for where nothing else keeps a timetable (compose.yaml)."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any, Final

from pipeline import moments
from pipeline.errors import Retry

log = logging.getLogger(__name__)

AGAIN_S: Final = 600.0
"""After trouble that passes; sooner where the command runs more often."""


def span_s(words: str) -> float:
    """Seconds of a span (1d); 0 for "". Raises ConfigError."""
    return moments.span(words, "--every").total_seconds() if words else 0.0


def repeated(run: Callable[[], int], every_s: float, stop: threading.Event | None = None) -> int:
    """Once where `every_s` is 0, else until SIGTERM; the exit code of the last run.

    Trouble that passes is logged, and tried again within 10 minutes; of a wrong setting the process ends. SIGTERM is
    heard by hand: the first process of a container ignores it otherwise.
    """
    if not every_s:
        return run()
    stop = stop or _stopping()
    while True:
        code, wait_s = _run(run, every_s)
        if stop.wait(wait_s):
            return code


def _run(run: Callable[[], int], every_s: float) -> tuple[int, float]:
    try:
        return run(), every_s
    except Retry as error:
        log.warning("%s: again in %.0f s", error, min(AGAIN_S, every_s))
        return 1, min(AGAIN_S, every_s)


def _stopping() -> threading.Event:
    stop = threading.Event()

    def heard(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, heard)
    return stop
