"""What is looked at every so often by whoever has the first partition.

A look is the caretaker's work: given up with its partitions, so that nobody acts beside the next owner, and whatever it
raises ends the responder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from pipeline.respond.caretaker import Caretaker
from pipeline.tasks import cancel_all, raise_ended


@dataclass(frozen=True, slots=True)
class Round:
    """One thing to look at."""

    name: str
    every_s: float
    look: Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Rounds:
    """All of them. `start` before use, `close` after."""

    caretaker: Caretaker
    rounds: tuple[Round, ...]
    _task: asyncio.Task[None] | None = field(default=None)

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="rounds")

    async def close(self) -> None:
        """Stop; what was begun goes on with whoever comes next."""
        await cancel_all((self._task,))

    def check(self) -> None:
        """Raise what ended it."""
        raise_ended(self._task, "looking at rotations and at what was wrong ended")

    async def _run(self) -> None:
        clock_s, due_s = asyncio.get_running_loop().time, dict.fromkeys((each.name for each in self.rounds), 0.0)
        while True:
            for each in self.rounds if 0 in self.caretaker.partitions else ():
                if clock_s() >= due_s[each.name]:
                    self.caretaker.also(each.name, each.look())
                    due_s[each.name] = clock_s() + each.every_s
            await asyncio.sleep(min(each.every_s for each in self.rounds))
