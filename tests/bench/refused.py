"""From the first hostile request to the first refused one, at half load: `python -m tests.bench.refused`.

A worker and an enforcing responder as an operator runs them, on one node of Apache Kafka (or `--brokers`; the embedded
broker where there is no Java) and a ClickHouse whose rows go elsewhere, as in the latency part of `make bench`
(`--rows-here`: to a ClickHouse on these cores). A load of fixed rate goes on (`pipeline/bench/offer.py`): half of what
the worker sustains beside a live producer, measured before unless `--per-s` says it. Meanwhile strangers use keys with
a past, a request each 25 ms; the responder revokes by the signed webhook, and a gateway in this process notes when it
has obeyed. Refused is the next request of that thief, had he gone on. All that lies in between counts: producer, fetch,
slice, core, the decisions topic, the webhook. The policy asks for less evidence than usual; keys on which the guard
refuses all the same (about a third: nothing new but calls and errors, which are one fact) are told as `not_acted_on`
and have no time. Prints JSON; `legs` are the responder's own times.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import numpy as np
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from pipeline.bench import elsewhere, latency
from pipeline.bench.attacks import APART_US, Attacks, attack, victim
from pipeline.bench.trial import Trial
from pipeline.config.tree import Config, Kafka, Topics
from pipeline.demo import broker, product, settings
from pipeline.demo.broker import PARTITIONS, free_port
from pipeline.demo.children import Children
from pipeline.keys.catalogue import publish_keys
from schemas.key import Key
from tests.bench.grown import print_json
from tests.kafka import cluster

GRACE_S: Final = 15.0
AIM_S: Final = 2.0
SUSTAINED: Final = Attacks(count=1, seconds=20.0)
MORE_PER_S: Final = 80_000.0  # than one worker can do here
LIFE_S: Final = 1_800  # the broker ends by then, whatever happens


@dataclass(slots=True)
class Gateway:
    """Takes a key out of use by signed webhook; `obeyed`: when, in us, the first time."""

    secret: str
    obeyed: dict[str, int] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.Response:
        """Raises WebhookVerificationError for what the responder has not signed."""
        body = await request.read()
        Webhook(self.secret).verify(body, dict(request.headers))
        message = msgspec.json.decode(body)
        if message["type"] == "key.revoke":
            self.obeyed.setdefault(message["data"]["key_id"], time.time_ns() // 1_000)
        return web.json_response({"status": "revoked"})


@asynccontextmanager
async def served(gateway: Gateway) -> AsyncIterator[str]:
    """Its address, on loopback."""
    app = web.Application()
    app.router.add_post("/", gateway.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Enforced(Trial):
    """A worker with a responder that acts, on declared keys."""

    webhook_url: str = ""
    webhook_secret: str = ""
    victims: int = 0
    responder_port: int = field(default_factory=free_port)

    async def create(self, *more: str) -> None:
        """Topics and catalogue."""
        await super().create(*more)
        names = {name: f"{self.run}.{name}" for name in Topics.__struct_fields__}
        keys = [Key(key_id=victim(n), environment="live", owner=f"owner{n}", version=1) for n in range(self.victims)]
        await publish_keys(Config(kafka=self.kafka, topics=Topics(**names)), keys)

    def config_text(self, port: int) -> str:
        """With caps that leave room for all, and less evidence asked: what is measured is the way, not the brake."""
        caps = "{ max_per_hour = 100000, max_per_day = 100000, max_share_of_active = 1.0 }"
        return (
            super().config_text(port)
            + f"""
[respond]
group = "{self.run}-respond"
metrics_port = {self.responder_port}

[[respond.endpoints]]
name = "keys"
url = "{self.webhook_url}"
secret = "{self.webhook_secret}"
allow_private = true
events = []

[respond.night]
blind_after_s = 0 # the embedded broker answers end offsets wrongly

[respond.policy]
mode = "enforce"
adapter = "keys"
caps = {caps}
min_family_bits = 3 # these thieves make 20 requests: how soon evidence suffices is keybench's to say
max_per_owner = 0
settle_s = 0
breaker_owners = 0

[[respond.rules]]
name = "revoke"
rung = "revoke"
min_severity = "medium"
"""
        )

    async def respond(self, worker_port: int) -> None:
        """Start the responder; returns when it is ready."""
        config = self.children.folder / f"{self.run}-{worker_port}.toml"
        await self.children.start(
            "respond", [sys.executable, "-m", "pipeline.cli.main", "respond", "--config", str(config)]
        )
        async with aiohttp.ClientSession() as session:
            await product.wait_until_ready(session, self.children, self.responder_port, "the responder")


def first_us(attacks: Attacks, start_us: int) -> dict[str, int]:
    """When the first hostile request with each key was due."""
    found: dict[str, int] = {}
    for event in attack(attacks, start_us):
        found.setdefault(event.key_id, event.ts_us)
    return found


def refused_after_s(began_us: Mapping[str, int], obeyed_us: Mapping[str, int]) -> list[float]:
    """Of each key that was acted on, to the first request at or after the order."""
    return [-(-(at_us - began_us[key]) // APART_US) * APART_US / 1e6 for key, at_us in obeyed_us.items()]


def summed_up(per_s: float, attacks: int, seconds: list[float]) -> dict[str, object]:
    """What is printed. Less than half of the keys acted on is no measurement: the aim is not met."""
    p50, p99, worst = (float(np.percentile(seconds or [np.nan], q, method="higher")) for q in (50, 99, 100))
    return {
        "per_s": round(per_s), "attacks": attacks, "not_acted_on": attacks - len(seconds), "p50_s": round(p50, 3),
        "p99_s": round(p99, 3), "worst_s": round(worst, 3), "aim_s": AIM_S,
        "met": 2 * len(seconds) >= attacks and p99 < AIM_S,
    }  # fmt: skip


def legs_of(metrics: str) -> dict[str, dict[str, float]]:
    """From the responder's /metrics: mean of each leg of a response, and the bucket in which 99 of 100 have ended."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics):
        for name, labels, value, *_ in family.samples if family.name == "keywatch_response_seconds" else ():
            leg = found.setdefault(labels["leg"], {})
            leg[labels["le"] if name.endswith("_bucket") else name.rpartition("_")[2]] = value
    return {leg: _leg(of) for leg, of in found.items() if of.get("count")}


def _leg(of: dict[str, float]) -> dict[str, float]:
    counted = sorted((float(le), value) for le, value in of.items() if le not in ("sum", "count", "created"))
    within = next(le for le, value in counted if value >= 0.99 * of["count"])
    return {"mean_ms": round(1e3 * of["sum"] / of["count"], 1), "p99_within_s": within}


async def _legs(port: int) -> dict[str, dict[str, float]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return legs_of(await answer.text())


async def measured(trial: Enforced, attacks: Attacks, per_s: float, gateway: Gateway) -> dict[str, object]:
    """One run. Raises Fatal where a part ends."""
    offer = latency._offer(trial, attacks, per_s, 0.0)
    async with latency._with_a_past(trial, offer) as (_, port):
        await trial.respond(port)
        child = await latency._offering(trial, offer)
        offered = await latency._offered(trial, child)
        await trial.stop(child)  # it has ended, and nobody is to miss it
        began = first_us(attacks, offered.start_us)
        deadline = time.monotonic() + GRACE_S
        while len(gateway.obeyed) < attacks.count and time.monotonic() < deadline:
            trial.children.check()
            await asyncio.sleep(0.1)
        legs = await _legs(trial.responder_port)
    return summed_up(per_s, attacks.count, refused_after_s(began, gateway.obeyed)) | {
        "offered_late_ms": round(offered.late_ms, 1), "legs": legs,
    }  # fmt: skip


async def bench(brokers: str, rows_here: bool, per_s: float, attacks: Attacks) -> dict[str, object]:
    """Everything, and nothing left behind."""
    folder = Path(tempfile.mkdtemp(prefix="keywatch-refused-"))
    children, gateway = Children(folder, {}), Gateway(settings.new_webhook_secret())
    try:
        address = brokers or (await broker.start(children))[1]
        kafka = Kafka(brokers=address, partitions=PARTITIONS, replication=1, rebalance_timeout_s=3.0)
        clickhouse = await product.start_database(children)
        clickhouse = clickhouse if rows_here else await elsewhere.start(children, clickhouse)
        if not per_s:
            per_s = await latency.sustained(Trial(children, kafka, clickhouse), SUSTAINED, MORE_PER_S) / 2
        async with served(gateway) as url:
            trial = Enforced(
                children, kafka, clickhouse, webhook_url=url, webhook_secret=gateway.secret, victims=attacks.count
            )
            return await measured(trial, attacks, per_s, gateway)
    finally:
        await children.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def a_broker(given: str) -> Iterator[str]:
    """Its address; "": the embedded one is to be started."""
    if given or cluster.why_not():
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="keywatch-kafka-") as folder:
        running = cluster.start(Path(folder), 1, life_s=LIFE_S)
        try:
            yield running.brokers
        finally:
            running.stop()


def main() -> int:
    """Exit code 1 where the aim is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--brokers", default="", help="HOST:PORT of a Kafka instead of one of our own")
    parser.add_argument("--rows-here", action="store_true", help="rows go to a ClickHouse on these cores")
    parser.add_argument("--per-s", type=float, default=0.0, help="events per second; 0: half of what is sustained")
    parser.add_argument("--attacks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="in which they begin")
    given = parser.parse_args()
    attacks = Attacks(count=given.attacks, seconds=given.seconds)
    with a_broker(given.brokers) as address:
        found = asyncio.run(bench(address, given.rows_here, given.per_s, attacks))
    print_json("refused", found)
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
