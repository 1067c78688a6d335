"""An application on a port of loopback, in a thread with a loop of its own, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

SHOTS = Path(__file__).parents[2] / "build" / "console"
"""Pictures of the pages as the tests saw them: artefacts of CI, to be looked at."""


@contextmanager
def served(application: ASGIApp) -> Iterator[tuple[str, asyncio.AbstractEventLoop]]:
    """Its address and its loop."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", loop
    finally:
        server.should_exit = True
        thread.join()
        loop.close()
