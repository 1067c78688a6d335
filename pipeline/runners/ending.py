"""How a process ends that can't go on: at once, so that nothing is committed that was not finished."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable
from typing import Any, Final, NoReturn

from pipeline.errors import Fatal

log = logging.getLogger(__name__)

EXIT_FATAL: Final = 70
STOP_S: Final = 25.0
"""After SIGTERM responder and intake end by themselves within some 15 s, if brokers answer; orchestrators give 30."""


def end_process(error: BaseException) -> NoReturn:
    """End at once, without a commit: what was not checkpointed is replayed. Fatal is one line, a bug a traceback."""
    log.critical("stopped: %s", error, exc_info=None if isinstance(error, Fatal) else error)
    logging.shutdown()
    os._exit(EXIT_FATAL)


async def guarded(work: Awaitable[Any]) -> None:
    """A background task, or a callback whose caller swallows exceptions: a failure ends the process."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001
        end_process(error)


def stop_by_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT. `STOP_S` later the process ends, whatever it waits for: aiokafka asks a broker that
    takes connections and answers nothing again and again, in its own `stop` as well.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    late = Fatal(
        f"not all has ended {STOP_S:.0f} s after the signal: a broker or a target is silent. What was not committed "
        "comes again at the next start, under the same ids"
    )

    def begin() -> None:
        stop.set()
        loop.call_later(STOP_S, end_process, late)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin)
    return stop
