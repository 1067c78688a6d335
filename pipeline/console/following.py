"""What is held for as long as the broker answers, and found again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from pipeline.errors import ConfigError, Fatal, Retry

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0)


async def follow(
    connect: Callable[[], AbstractAsyncContextManager[T]], hold: Callable[[T], AsyncIterator[None]], words: str
) -> None:
    """Until cancelled: connect, hold until that raises, connect again. `hold` yields whenever all is well; `words` say
    what is not to be had meanwhile: a warning the first time.
    """
    tries = 0
    while True:
        try:
            async with connect() as found:
                async for _ in hold(found):
                    tries = 0
        except (Fatal, Retry, ConfigError, OSError, TimeoutError) as error:
            log.log(logging.DEBUG if tries else logging.WARNING, "%s: %s", words, error)
        await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
        tries += 1
