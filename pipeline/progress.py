"""A bar for long work, on stderr and on a terminal only: pipes, logs and programs never see it.

`counted` goes between an iterable and its loop: for tens of thousands of cheap things it looks at the clock once in
`EVERY`. Where nobody knows how many there will be, it shows how many there were, and since when.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")
EVERY: Final = 1_000
"""Of many things; few (a known total below it) are shown one by one."""


def counted(things: Iterable[T], doing: str, total: int | None = None, shown: bool = True) -> Iterator[T]:
    """The same things; `doing` in words, e.g. "replaying". `shown`: False where the output is for programs."""
    if not (shown and sys.stderr.isatty()):
        yield from things
        return
    every = 1 if total is not None and total < EVERY else EVERY
    with _bar(total) as bar:
        task = bar.add_task(doing, total=total)
        number = 0
        for number, thing in enumerate(things, 1):
            yield thing
            if number % every == 0:
                bar.update(task, completed=number)
        bar.update(task, completed=number)


def _bar(total: int | None) -> Progress:
    """With a total a bar, without one a count."""
    console = Console(stderr=True)
    if total is not None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=console, transient=True)
    count = TextColumn("{task.description} {task.completed:,}")
    return Progress(SpinnerColumn(), count, TimeElapsedColumn(), console=console, transient=True)
