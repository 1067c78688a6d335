"""Wires what is told: endpoints, cases, briefs, the watch. The responder's process calls it once at its start."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from pipeline.config.tree import Config
from pipeline.respond.adapters import build
from pipeline.respond.delivery.channel import channel
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.night.night import Books, Keys, Night
from pipeline.respond.night.watch import KafkaEyes
from pipeline.respond.rotation.leftovers import Tidying
from pipeline.respond.set_up import SetUp
from pipeline.respond.usage import UsageReader


async def telling(
    config: Config, decisions: Decisions, books: Books, keys: Keys, stack: AsyncExitStack,
    set_up: SetUp | None = None,
) -> Night:  # fmt: skip
    """The night, with running deliveries; `books` have followed the topic from its start.

    Raises `ConfigError` for a bad endpoint.
    """
    respond = config.respond
    numbers = UsageReader(config.clickhouse, respond.night.numbers_within_s)
    stack.push_async_callback(numbers.close)
    eyes = KafkaEyes(config.kafka, config.topics.requests)
    keeps = frozenset(build.gateways(respond))  # a webhook's service does with its keys what it likes
    tidying = Tidying(decisions, books.leftovers, keys, keeps)
    night = Night(respond, books, decisions, keys, numbers, time.time, eyes, set_up=set_up, tidying=tidying)
    mailboxes = [Mailbox(channel(respond, each), decisions.write, time.time) for each in respond.endpoints]
    deliveries = night.deliveries = Deliveries(mailboxes, night.prepare)
    deliveries.remember(decisions.outbox)
    deliveries.checks.append(night.check)
    deliveries.letting_go.append(night.let_go)
    decisions.followers.append(lambda _, record: deliveries.follow(decisions.outbox, record))
    deliveries.start()
    stack.push_async_callback(deliveries.close)
    night.start()
    stack.push_async_callback(night.close)
    return night
