"""The end of a task that runs until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from pipeline.errors import Fatal


async def cancel_and_wait(task: asyncio.Task[Any] | None) -> None:
    """Cancel it, if there is one, and wait until it has ended. Raises what it had failed with."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def cancel_all(tasks: Iterable[asyncio.Future[Any] | None]) -> None:
    """Cancel those that there are and wait until all have ended, whatever they had failed with."""
    there = [task for task in tasks if task is not None]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)


def raise_ended(task: asyncio.Task[Any] | None, words: str) -> None:
    """Raise Fatal where a task that runs until it is stopped has failed. `words`: what that means."""
    if task is not None and task.done() and not task.cancelled() and (error := task.exception()):
        raise Fatal(f"{words}: {error}") from error
