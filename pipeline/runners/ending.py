"""How a worker ends that can't go on: at once, so that nothing is committed that was not checkpointed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from typing import Any, Final, NoReturn

from pipeline.errors import Fatal

log = logging.getLogger(__name__)

EXIT_FATAL: Final = 70


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
