"""`keywatch demo`: the whole product on this machine, a fleet that uses it, and a story that abuses it.

Broker, ClickHouse front, worker and responder are processes of their own, started and ended here; the API and its
clients run in this process. Exit code 0 only if every attack was found, the leaked key is refused, the fenced one
works for its owner and not for its thief, and no innocent key was acted on.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from standardwebhooks import Webhook

from pipeline.config.file import load
from pipeline.control.topic import say
from pipeline.demo import (
    api,
    broker,
    fleet,
    gateway_log,
    history,
    key_service,
    lives,
    product,
    rhythm,
    settings,
    story,
    traffic,
)
from pipeline.demo.children import Children
from pipeline.demo.routes import ORDERS, ROUTES
from pipeline.demo.screen import Screen
from pipeline.demo.verdict import judge, passed, strangers
from pipeline.demo.watch import Watch, read
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.geo.provider import DEMO_DB
from schemas.incident import Incident
from schemas.response import Response

SEED: Final = 7
CATCH_UP_S: Final = 120.0
"""How long the worker may take for the history."""
SETTLE_S: Final = 30.0
"""How long after the story an attack may still be found."""
CALM_S: Final = 4.0
"""How long is waited for acts on innocent keys when everything else is done."""


@dataclass(slots=True)
class Run:
    """One run of the demo: what is shown, started and known."""

    screen: Screen
    children: Children
    clients: tuple[fleet.Client, ...]
    places: settings.Places
    began: float = field(default_factory=time.monotonic)
    proofs: dict[str, int] = field(default_factory=dict)
    acted: asyncio.Queue[Response] = field(default_factory=asyncio.Queue)

    def hear(self, message: Incident | Response) -> None:
        """Show a message of the product; a key that was acted on is to be tried."""
        self.screen.tell(message)
        if isinstance(message, Response) and message.stage == "done" and message.verdict == "allowed":
            self.acted.put_nowait(message)

    def say(self, text: str) -> None:
        """A line about the demo itself, with the seconds since its start."""
        self.screen.say(f"{text} ({time.monotonic() - self.began:.1f} s)")


def main(keep: bool, broker: str | None) -> int:
    """Run the demo; returns the exit code: 0 all as it should be, 1 not, 2 wrong use, 130 interrupted."""
    if broker is not None and not broker.rpartition(":")[2].isdigit():
        raise ConfigError(f"--broker {broker}: give HOST:PORT")
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        return asyncio.run(_run(console, keep, broker))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Interrupted; everything that was started has been ended.")
        return 130


async def _run(console: Console, keep: bool, given: str | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="keywatch-demo-"))
    children = Children(folder, {})
    _end_on_signals()
    code = 1
    try:
        code = await _demo(Screen(console), children, keep, given)
    except* (Fatal, Retry, ConfigError) as group:
        code = 2 if group.subgroup(ConfigError) else 1
        console.print(f"[bold red]{first_of(group)}[/]", soft_wrap=True, highlight=False)
    finally:
        await children.stop_all()
        if code:
            console.print(f"What each process wrote: {folder}/*.log", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _end_on_signals() -> None:
    """Ctrl-C and SIGTERM alike cancel the run, so that what was started is ended in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def first_of(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first single exception of a group, however deep."""
    inner = group.exceptions[0]
    return first_of(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _demo(screen: Screen, children: Children, keep: bool, given: str | None) -> int:
    async with AsyncExitStack() as stack:
        places = settings.Places(
            brokers=given or "", clickhouse_url="", webhook_url="", webhook_secret=settings.new_webhook_secret(),
            worker_port=broker.free_port(), responder_port=broker.free_port(), geo_db=DEMO_DB,
            console_port=broker.free_port(),
            run=os.urandom(3).hex() if given else "",
        )  # fmt: skip
        run = Run(screen, children, fleet.build(SEED), places)
        async with asyncio.TaskGroup() as starting:
            database = starting.create_task(product.start_database(children))
            await _start_broker(run, stack)
            log, front, url = await _start_api(run, stack)
        places.clickhouse_url = database.result()
        run.say(f"ClickHouse (chDB, tables made) on {places.clickhouse_url}")
        config = settings.write(children.folder, places)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        now = datetime.now(UTC)
        caller = traffic.Caller(session, url, key_service.issue_all(front.service, lives.declared(run.clients, now)))
        await log.catalogue(front.service.keys.values())
        await say(load(config), [story.announced(now)])
        await product.start_keywatch(children, config, "worker", "respond")
        return await _use(run, log, front, caller, config, keep)


async def _start_broker(run: Run, stack: AsyncExitStack) -> None:
    places = run.places
    if places.run:
        await broker.wait_until_ready(places.brokers)
        run.say(f"Using your Kafka {places.brokers}, with topics demo.{places.run}.* that are deleted at the end")
        stack.push_async_callback(_leave_nothing, run)
    else:
        _, places.brokers = await broker.start(run.children)
        run.say(f"Broker (Tansu, in memory) on {places.brokers}")
    await broker.create_topics(places.brokers, places.topics)


async def _leave_nothing(run: Run) -> None:
    """Delete this run's topics, once nobody is left who might create one of them again by asking about it."""
    await run.children.stop_all()
    await broker.delete_topics(run.places.brokers, run.places.topics)


async def _start_api(run: Run, stack: AsyncExitStack) -> tuple[gateway_log.GatewayLog, api.Api, str]:
    producer = await gateway_log.connect(run.places.brokers)
    stack.push_async_callback(producer.stop)
    log = gateway_log.GatewayLog(producer, run.places.topics, broker.PARTITIONS)
    rng = random.Random(SEED)  # noqa: S311
    front = api.Api(key_service.KeyService(), Webhook(run.places.webhook_secret), log.request, log.key, rng)
    runner, url = await api.serve(front)
    stack.push_async_callback(runner.cleanup)
    run.places.webhook_url = url + api.WEBHOOK_PATH
    run.say(f"API with its key service on {url}")
    return log, front, url


async def _use(
    run: Run, log: gateway_log.GatewayLog, front: api.Api, caller: traffic.Caller, config: Path, keep: bool
) -> int:
    """Produce the history, go on live, play the story, judge."""
    now_us = time.time_ns() // 1_000
    count = await _produce(run, log, now_us)
    watch = Watch(run.hear)
    async with asyncio.TaskGroup() as group:
        background: list[Coroutine[Any, Any, None]] = [
            traffic.live(caller, run.clients, SEED, now_us),
            read(watch, run.places.brokers, run.places.topics, broker.PARTITIONS),
            _check(run), _prove(run, caller),
        ]  # fmt: skip
        tasks = [group.create_task(each) for each in background]
        await _catch_up(run, caller.session, count)
        await product.start_keywatch(run.children, config, "console")  # the worker has the processors until here
        run.say(f"Console on http://127.0.0.1:{run.places.console_port}, token {run.places.console_token}")
        code = await _story(run, caller, front, watch)
        if keep:
            await _stay(run, caller.base_url, config)
        for task in tasks:
            task.cancel()
    return code


async def _produce(run: Run, log: gateway_log.GatewayLog, now_us: int) -> int:
    span = rhythm.Span(now_us - history.HISTORY_DAYS * rhythm.DAY_US, now_us)
    planned = rhythm.plan(run.clients, span, SEED)
    stream = history.events(run.clients, planned, SEED, now_us)
    count = await history.produce(log.producer, log.topics.requests, log.partitions, stream)
    run.say(f"{count:,} requests of {len(run.clients)} keys in the last {history.HISTORY_DAYS} days produced to Kafka")
    return count


async def _check(run: Run) -> None:
    while True:
        for name in await run.children.revive():
            run.say(f"{name} was killed with -9: started again, as an orchestrator would; it goes on where it was")
        run.children.check()
        await asyncio.sleep(0.5)


async def _prove(run: Run, caller: traffic.Caller) -> None:
    """Try each key that was acted on with a real request, as its owner would."""
    by_key = {client.key_id: client for client in run.clients}
    while True:
        done = await run.acted.get()
        run.proofs[done.key_id] = await caller.usual(by_key[done.key_id], ROUTES[ORDERS])
        run.screen.proof(done.key_id, run.proofs[done.key_id], done.rung == "fence")


async def _catch_up(run: Run, session: aiohttp.ClientSession, count: int) -> None:
    await product.wait_until_ready(session, run.children, run.places.worker_port, "the worker")
    run.say("The worker is ready, its detectors compiled; it reads the history")
    tell = _progress(run, count)
    await product.wait_for_rows(session, run.places.clickhouse_url, count, CATCH_UP_S, tell)
    await product.wait_until_ready(session, run.children, run.places.responder_port, "the responder")
    run.say("The history is judged and in ClickHouse; live traffic goes on")


def _progress(run: Run, count: int) -> product.Tell:
    shown = 0

    def tell(rows: int) -> None:
        nonlocal shown
        if rows >= shown + count // 3:
            shown = rows
            run.say(f"{rows:,} of {count:,} requests judged and written")

    return tell


async def _story(run: Run, caller: traffic.Caller, front: api.Api, watch: Watch) -> int:
    scenes = story.schedule(run.clients, datetime.now(UTC), SEED)
    by_key = {client.key_id: client for client in run.clients}
    stage = story.Stage(caller, by_key, front.outage, random.Random(SEED))  # noqa: S311
    run.screen.story_us = time.time_ns() // 1_000
    await story.perform(stage, scenes, run.screen.scene)
    outcomes = judge(scenes, watch, run.proofs)
    deadline = time.monotonic() + SETTLE_S
    while not all(outcome.good for outcome in outcomes) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        outcomes = judge(scenes, watch, run.proofs)
    await asyncio.sleep(CALM_S)
    outcomes, touched = judge(scenes, watch, run.proofs), strangers(scenes, watch)
    run.screen.table(outcomes, touched)
    good = passed(outcomes, touched)
    run.say("All attacks found, no innocent key touched" if good else "Not as it should be")
    return 0 if good else 1


def _pid(run: Run, name: str) -> str:
    return f"{next(child.process.pid for child in run.children.all if child.name == name)} ({name})"


async def _stay(run: Run, api_url: str, config: Path) -> None:
    """Show the addresses and wait for Ctrl-C, which then is no failure."""
    places = run.places
    command = Path(sys.executable).with_name("keywatch")
    run.screen.addresses(
        {
            "console": f"http://127.0.0.1:{places.console_port}, token {places.console_token}",
            "API": api_url,
            "ClickHouse (HTTP)": places.clickhouse_url,
            "Kafka": places.brokers,
            "metrics": f"http://127.0.0.1:{places.worker_port}/metrics and :{places.responder_port}/metrics",
            "beside it": f"export KEYWATCH_CONFIG={config}",
            "then": f"{command} incidents, explain ID, keys, keys KEY, doctor",
            "break it": f"kill -9 {_pid(run, 'worker')} or {_pid(run, 'respond')}: it is started again",
        }
    )
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        run.say("Stopping")
