"""An event loop that never waits: it runs what is ready, and time is a number that a test moves.

Every simulated process has one of its own, so that a frozen process is one whose loop is not run: its timers are all
overdue when it is thawed, as after SIGSTOP and SIGCONT. The clock is shared.
"""

from __future__ import annotations

from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Clock:
    """Seconds; also stands in for the module `time` where only these are asked for."""

    now_s: float = 1_000.0

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self.now_s

    def time(self) -> float:
        """As time.time."""
        return self.now_s


class NoSelector:
    """Nothing from outside ever comes."""

    def select(self, timeout: float | None) -> list[Any]:
        """No event."""
        return []

    def close(self) -> None:
        """Nothing to release."""


class StepLoop(BaseEventLoop):
    """`step` runs until every task waits for something that is not there yet."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = NoSelector()
        self._default_executor = Inline()  # asyncio.to_thread's

    def time(self) -> float:
        """The shared clock."""
        return self._clock.now_s

    def step(self) -> None:
        """Run everything that can run now, timers included."""
        self.call_soon(self._stop_when_idle)
        self.run_forever()

    def _stop_when_idle(self) -> None:
        if self._ready:  # type: ignore[attr-defined]
            self.call_soon(self._stop_when_idle)
        else:
            self.stop()

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    call_soon_threadsafe = BaseEventLoop.call_soon  # there is one thread


class Inline(Executor):
    """An executor that has no threads: results are there at once, and in a fixed order."""

    def submit(self, function: Callable[..., T], /, *args: Any, **more: Any) -> Future[T]:
        """Call it now."""
        done: Future[T] = Future()
        try:
            done.set_result(function(*args, **more))
        except BaseException as error:  # noqa: BLE001  raised where the result is taken
            done.set_exception(error)
        return done
