"""`keywatch traffic`: the demo's API and its clients alone, against a broker that is there.

What a deployment lacks on its first day is traffic. This declares the demo's 200 keys, writes the two weeks before (if
nothing has been written to the requests topic yet), plays the demo's attacks once, and goes on as 200 clients would
until it is stopped. Never where real requests are: it declares keys and writes events as if it were the gateway. Its
addresses are of the documentation ranges (192.0.2.0/24 and so on): the demo's geo database alone places them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

import aiohttp
from standardwebhooks import Webhook

from pipeline.config.tree import Config
from pipeline.control.topic import say
from pipeline.demo import api, broker, fleet, gateway_log, history, key_service, lives, rhythm, settings, story, traffic
from pipeline.errors import ConfigError, Fatal
from pipeline.metrics import process_started
from pipeline.sinks.kafka import fetched_highwaters
from pipeline.sinks.topics import partitions_of

log = logging.getLogger(__name__)

SEED: Final = 7
STORY_AFTER_S: Final = 120.0
"""The worker has judged the history by then, in most cases: attacks are odd only against what is usual."""


def main(config: Config, attacks: bool) -> int:
    """Until SIGTERM or Ctrl-C; returns the exit code. Raises `Fatal`, `ConfigError`."""
    if config.kafka.security != "PLAINTEXT":
        raise ConfigError("keywatch traffic speaks to a plain listener only: it is for a look, at a broker of your own")
    asyncio.run(_until_signal(config, attacks))
    return 0


async def _until_signal(config: Config, attacks: bool) -> None:
    task = asyncio.ensure_future(run(config, attacks))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("stopped")


async def run(config: Config, attacks: bool, story_after_s: float = STORY_AFTER_S) -> None:
    """Declare, write the past, go on for ever. Raises `Fatal` where the broker doesn't answer or has no topics."""
    clients = fleet.build(SEED)
    topics = config.topics
    await broker.wait_until_ready(config.kafka.brokers.split(",")[0].strip(), timeout_s=60.0)
    partitions = (await partitions_of(config.kafka, [topics.requests])).get(topics.requests, 0)
    if not partitions:
        raise Fatal(f"topic {topics.requests} does not exist: deploy/kafka/topics.sh makes it")
    process_started()
    async with AsyncExitStack() as stack:
        producer = await gateway_log.connect(config.kafka.brokers)
        stack.push_async_callback(producer.stop)
        written = gateway_log.GatewayLog(producer, topics, partitions)
        secret = Webhook(settings.new_webhook_secret())
        rng = random.Random(SEED)  # noqa: S311
        front = api.Api(key_service.KeyService(), secret, written.request, written.key, rng)
        runner, url = await api.serve(front)
        stack.push_async_callback(runner.cleanup)
        secrets = key_service.issue_all(front.service, lives.declared(clients, datetime.now(UTC)))
        log.info("%d keys are declared", await written.catalogue(front.service.keys.values()))
        now_us = time.time_ns() // 1_000
        await _past(config, written, clients, now_us)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        caller = traffic.Caller(session, url, secrets)
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.live(caller, clients, SEED, now_us))
            if attacks:
                stage = story.Stage(caller, {each.key_id: each for each in clients}, front.outage, rng)
                group.create_task(_story(config, stage, clients, story_after_s))


async def _past(
    config: Config, written: gateway_log.GatewayLog, clients: tuple[fleet.Client, ...], now_us: int
) -> None:
    """Two weeks of it, unless there are requests already: time in a log doesn't go back."""
    ends = await fetched_highwaters(config.kafka, config.topics.requests, range(written.partitions))
    if any(ends.values()):
        log.info("there are requests already: the past is left as it is")
        return
    span = rhythm.Span(now_us - history.HISTORY_DAYS * rhythm.DAY_US, now_us)
    planned = rhythm.plan(clients, span, SEED)
    stream = history.events(clients, planned, SEED, now_us)
    count = await history.produce(written.producer, config.topics.requests, written.partitions, stream)
    log.info("%d requests of the last %d days are written; live traffic goes on", count, history.HISTORY_DAYS)


async def _story(config: Config, stage: story.Stage, clients: tuple[fleet.Client, ...], after_s: float) -> None:
    await asyncio.sleep(after_s)
    await say(config, [story.announced(datetime.now(UTC))])
    scenes = story.schedule(clients, datetime.now(UTC), SEED)
    await story.perform(stage, scenes, lambda scene: log.info("%s: %s", scene.name, scene.words))
    log.info("the story is told; usual traffic goes on")
