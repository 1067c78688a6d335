"""Where the running worker's time goes, by thread: `keywatch bench --profile`, with py-spy of the extra `bench`.

py-spy looks at the worker from outside, 100 times a second, for SECONDS in the middle of a log that waits. A sample is
a thread that runs or waits for the GIL or a processor, not one that has nothing to do; it is told under the innermost
function that is ours or of a library that we drive, since the leaf is mostly the interpreter's. Needs the right to
trace (root, or kernel.yama.ptrace_scope=0).

The story (two cores shared with broker and ClickHouse, so shares only). Once the event loop had 45 % of all samples,
the fetch thread a third, the core 20: aiokafka's three objects for every record, slices of 1,000 events, and threads
that waited 5 ms for the GIL behind each compiled call. Since then records stay in their batches (`runners/batches.py`),
slices hold 4,000 events, short compiled calls keep the GIL and others give it up after half a millisecond
(`runners/start.py`): 38 us of processor time per event became 21 where consume and decode alone took 6 and 9.
Sightings of new keys, packed by lz4 at aiokafka's level 9, were the largest single piece of the event loop, 7 % of all
samples (`sinks/packing.py`: level 1 now).

At 29,500 events a second (half load, slices of about 1,600, beside other tests) the core's thread takes 16 us an event,
the event loop 6, fetching 3, rows 4, since a slice costs 3 ms before its first event: 146 us an event in slices of 20,
12.6 in slices of 1,600, 10.9 in slices of 4,000. What makes the slow one in a hundred there is neither garbage (no
collection in 20 s) nor a checkpoint (13 ms of the core's thread for a copy, 5 ms for 500 due rows) nor the load (35 ms
late at most). Worker, broker and load keep 1.3 of two processors busy; the core's thread has work for 0.9 of the time,
computes for half of it and waits for a processor for a third (1.7 s in 5, `/proc/PID/task/TID/schedstat`), else for the
GIL. So less processor time per event, or a third processor, makes it shorter. To give up the GIL after 0.1 ms in the
place of 0.5 made no clear difference. Rows of 16 slices take 15 ms to be joined and as long to be encoded (1.2 us an
event); to join slices of one table first made none. Seconds of delay at the start of a load were two functions compiled
in the first slice of several events, and a third with the first incident (1.2 s): `warm.py` has them now.

At full speed the core's thread then had 63 % of all samples, a quarter of them in the scanner of events. That was not
its bytes: numba counted references to the arrays at every call within its loops, and looked at the sign of every index
(`detectors/compile.py`, `spans.word`). Both trees in turn, in one thread, ns an event (25 of 100 slices of 4,000 took
less; ten other jobs on both cores): the core 5,250 -> 3,400, of it scanner 1,350 -> 140, detectors 840 -> 690, numbers
for texts 400 -> 225, search for secrets 355 -> 123. Then packed texts 130 -> 46, rows of `requests` joined 400 -> 290
and encoded 230 -> 100. What is left of 3,400: detectors 690, addresses that are new 240, texts and their numbers 220,
windows and sources 370, messages to the others 200, all below 130 each: `declared_of`, `_remember`, `slots`, `joint`.

ClickHouse on the same cores then took nearly as much for an event as the worker. Both trees in turn over one log of 2
million events (25 processes waiting for both cores), processor time to what it was: ClickHouse .63, as an insert is no
longer searched for its own repeats (`sinks/clickhouse.py`); the worker .85 with slices of 6,500 events where 3,000 had
been (fetches had ended at 1 MB). A compiled CRC-32 of key ids and networks by number were tried: cProfile promised an
eighth, the core's time was the same. Not taken: lz4 on loopback, the projection of `requests`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from pipeline.bench.peers import INSTALL
from pipeline.bench.trial import ALLOW_S, Trial, ask
from pipeline.demo.children import last_words
from pipeline.errors import ConfigError, Fatal

SECONDS: Final = 10
WARM: Final = 0.1
"""Share of the log that is done before the first sample."""
TOLD: Final = 12
"""Functions of each thread."""
_FRAME: Final = re.compile(r"^(?P<name>.+) \((?P<file>[^()]+?)(?::\d+)?\)$")
_OURS: Final = re.compile(r"^(?:pipeline|detectors|schemas|aiokafka|faust|mode|clickhouse_connect|aiohttp|msgspec)/")
_WAITS: Final = re.compile(
    r"^(?:\w+\.)*(?:select|poll|wait|get|_worker|_wait_for_tstate_lock) \(.*(?:selectors|threading|queue|thread)\.py"
)
"""The innermost frame of a thread that has nothing to do; the kernel does not say so in every container."""
_THREAD: Final = re.compile(r"^thread \(?(?:0x)?[0-9a-fA-F]+\)?(?:: )?\"?(?P<name>[^\"]*)\"?$")


def program() -> str:
    """Path of py-spy. Raises ConfigError."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if not found:
        raise ConfigError(f"py-spy is not installed: {INSTALL}")
    return found


async def measure(trial: Trial, total: int) -> dict[str, Any]:
    """Shares of samples: {thread: {"share": of all, "functions": {name: of all}}}. Raises ConfigError, Fatal."""
    spy, out = program(), trial.children.folder / "profile.raw"
    child, port = await trial.start()
    try:
        await _until(trial, port, round(WARM * total))
        how = ["-d", str(SECONDS), "-f", "raw", "-t", "-F", "-o", str(out)]
        watcher = await trial.children.start("py-spy", [spy, "record", "-p", str(child.process.pid), *how])
        async with asyncio.timeout(SECONDS + 60.0):
            code = await watcher.process.wait()
        trial.children.all.remove(watcher)
        if code or not out.exists():
            raise Fatal(f"py-spy ended with code {code}: {last_words(watcher.log)}")
    except TimeoutError:
        raise Fatal(f"the worker or py-spy took longer than {ALLOW_S:.0f} s") from None
    finally:
        await trial.stop(child)
    return by_thread(out.read_text().splitlines())


async def _until(trial: Trial, port: int, events: int) -> None:
    async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
        while (await ask(session, port)).consumed < events:
            trial.children.check()
            await asyncio.sleep(0.2)


def by_thread(stacks: Iterable[str]) -> dict[str, Any]:
    """From py-spy's raw lines, `thread (0x1): core;outer (file.py);inner (file.py) COUNT`, the busiest first."""
    functions: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if stack:
            thread, *frames = stack.split(";")
            if frames and _WAITS.match(frames[-1]):
                continue
            functions[_thread(thread)][_told(frames)] += int(count)
    every = sum(counts.total() for counts in functions.values()) or 1
    order = sorted(functions, key=lambda name: -functions[name].total())
    return {
        name: {
            "share": round(functions[name].total() / every, 3),
            "functions": {told: round(count / every, 3) for told, count in functions[name].most_common(TOLD)},
        }
        for name in order
    }


def _thread(frame: str) -> str:
    found = _THREAD.match(frame)
    return (found["name"] if found else frame) or "(no name)"


def _told(frames: list[str]) -> str:
    """The innermost frame of ours or of a library we drive; without one the innermost of all."""
    for frame in reversed(frames):
        found = _FRAME.match(frame)
        if found and _OURS.match(short := _short(found["file"])):
            return f"{short}:{found['name']}"
    return frames[-1] if frames else "(nothing)"


def _short(path: str) -> str:
    return path.rpartition("site-packages/")[2]


def show(result: dict[str, Any], console: Console) -> None:
    """The report for people."""
    table = Table("thread", "function", "share", box=None)
    for thread, told in result.items():
        table.add_row(thread, "", f"{told['share']:.1%}")
        for name, share in told["functions"].items():
            table.add_row("", name, f"{share:.1%}")
    console.print(table)
