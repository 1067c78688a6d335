"""The demo's processes: what is started again, what ends the demo."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.demo.children import Children
from pipeline.errors import Fatal

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


async def test_a_worker_killed_with_9_is_started_again_and_a_broker_is_not(tmp_path: Path) -> None:
    children = Children(tmp_path, {})
    broker, worker = await children.start("broker", SLEEPS), await children.start("worker", SLEEPS)
    worker.process.kill()
    await worker.process.wait()
    assert await children.revive() == ["worker"]
    assert [(child.name, child.running) for child in children.all] == [("broker", True), ("worker", True)]
    broker.process.kill()
    await broker.process.wait()
    assert await children.revive() == []
    with pytest.raises(Fatal, match="broker ended with code -9"):
        children.check()
    await children.stop_all()
    assert not any(child.running for child in children.all)


async def test_a_worker_that_ends_by_itself_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    children = Children(tmp_path, {})
    child = await children.start("worker", [sys.executable, "-c", "print('no such topic'); raise SystemExit(70)"])
    await child.process.wait()
    assert await children.revive() == []
    with pytest.raises(Fatal, match="worker ended with code 70: no such topic"):
        children.check()
