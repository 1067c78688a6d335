"""The demo's child processes: started with a log file each, ended by process id, whatever happens to the demo.

Each child gets a session of its own, so that Ctrl-C reaches only the demo, which then ends them in order. On Linux
the kernel ends them as well should the demo itself be killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline import private
from pipeline.errors import Fatal

STOP_S = 12.0
"""How long a child may take after SIGTERM before it is killed; the worker flushes and commits in that time."""
SERVERS: Final = ("broker", "clickhouse")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Child:
    """One running process and where its output goes."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    command: tuple[str, ...]

    @property
    def running(self) -> bool:
        """True while it has not ended."""
        return self.process.returncode is None


@dataclass(slots=True)
class Children:
    """All processes of one demo, in the order they were started; stopped in the reverse order."""

    folder: Path
    env: Mapping[str, str]
    all: list[Child] = field(default_factory=list)

    async def start(self, name: str, command: Sequence[str]) -> Child:
        """Start one child; its output goes to `<folder>/<name>.log`. Raises OSError where it cannot be executed."""
        log = self.folder / f"{name}.log"
        with os.fdopen(private.opened(log, os.O_WRONLY | os.O_APPEND), "ab") as out:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **self.env}, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        child = Child(name, process, log, tuple(command))
        self.all.append(child)
        return child

    def check(self) -> None:
        """Raises `Fatal` with the last words of a child that has ended on its own."""
        for child in self.all:
            if not child.running:
                raise Fatal(f"{child.name} ended with code {child.process.returncode}: {last_words(child.log)}")

    async def revive(self) -> list[str]:
        """Start the clients again that somebody killed with -9, as an orchestrator would; returns their names."""
        ended = [child for child in self.all if child.process.returncode == -signal.SIGKILL]
        killed = [child for child in ended if child.name not in SERVERS]  # theirs is what a restart would lose
        for child in killed:
            self.all.remove(child)
            await self.start(child.name, child.command)
        return [child.name for child in killed]

    async def stop(self, child: Child, wait_s: float = STOP_S) -> None:
        """SIGTERM, then SIGKILL after `wait_s`; by its process id and nothing else."""
        if not child.running:
            return
        child.process.terminate()
        try:
            await asyncio.wait_for(child.process.wait(), wait_s)
        except TimeoutError:
            child.process.kill()
            await child.process.wait()

    async def stop_all(self) -> None:
        """Stop everything, broker and ClickHouse last: the worker still needs them while it drains."""
        servers = [child for child in self.all if child.name in SERVERS]
        clients = [child for child in self.all if child.name not in SERVERS]
        await asyncio.gather(*(self.stop(child) for child in clients))
        await asyncio.gather(*(self.stop(child) for child in servers))


def last_words(log: Path, lines: int = 3, limit: int = 600) -> str:
    """The end of a log file on one line, for an error message."""
    text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    return " | ".join(line.strip() for line in text)[-limit:] or "(no output)"


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
