"""What is followed is found again, and said to be lost once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.console import following
from pipeline.errors import Fatal


async def test_it_is_connected_again_whenever_it_was_lost_and_its_loss_is_a_warning_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "RETRY_S", (0.0,))
    caplog.set_level(logging.DEBUG, following.__name__)
    ways = ["away", "away", "well, then lost", "away", "well for good"]
    open_, held = 0, asyncio.Event()

    @asynccontextmanager
    async def connect() -> AsyncIterator[str]:
        nonlocal open_
        if ways[0] == "away":
            raise Fatal(ways.pop(0))
        open_ += 1
        try:
            yield ways.pop(0)
        finally:
            open_ -= 1

    async def hold(found: str) -> AsyncIterator[None]:
        yield
        if found == "well for good":
            held.set()
            await asyncio.Event().wait()
        raise OSError(found)

    task = asyncio.create_task(following.follow(connect, hold, "not to be had"))
    await held.wait()
    assert open_ == 1
    task.cancel()
    await asyncio.wait([task])
    assert open_ == 0
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "not to be had: away"), ("DEBUG", "not to be had: away"),
        ("WARNING", "not to be had: well, then lost"), ("DEBUG", "not to be had: away"),
    ]  # fmt: skip
