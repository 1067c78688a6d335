"""The peers as processes of their own: which there are, how each is called, what is said where one is not installed."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec

from pipeline.bench.clock import Pace
from pipeline.bench.trial import ALLOW_S
from pipeline.demo.children import Children, last_words
from pipeline.errors import Fatal

INSTALL: Final = "pip install -c constraints.txt 'keywatch[bench]'"


class Peer(msgspec.Struct, frozen=True):
    """`module` of this package prints its pace last; it is there where the distribution `package` is."""

    key: str
    words: str
    module: str
    package: str
    install: str = INSTALL


PEERS: Final = (
    Peer("faust_eps", "plain Faust agent", "plain_agent", "faust-streaming"),
    Peer("quix_eps", "Quix Streams", "quix_app", "quixstreams"),
    Peer("bytewax_eps", "Bytewax", "bytewax_flow", "bytewax", f"{INSTALL} (Python 3.11 or 3.12: no wheel for 3.13)"),
    Peer("river_eps", "River's half-space trees, no Kafka", "river_alone", "river"),
)


def installed(peer: Peer) -> bool:
    """Whether it can be measured here."""
    try:
        version(peer.package)
    except PackageNotFoundError:
        return False
    return True


async def ask(children: Children, module: str, arguments: list[str]) -> Pace:
    """A module of this package as a process of its own; the last line that it prints is its pace. Raises Fatal."""
    child = await children.start(module, [sys.executable, "-m", f"pipeline.bench.{module}", *arguments])
    try:
        async with asyncio.timeout(ALLOW_S):
            code = await child.process.wait()
    except TimeoutError:
        await children.stop(child)
        raise Fatal(f"{module} did not end in {ALLOW_S:.0f} s: {last_words(child.log)}") from None
    finally:
        children.all.remove(child)
    if code:
        raise Fatal(f"{module} ended with code {code}: {last_words(child.log)}")
    return msgspec.json.decode(child.log.read_text().splitlines()[-1], type=Pace)


async def measure(children: Children, peer: Peer, brokers: str, topic: str, partitions: int, events: int) -> Pace:
    """The pace of one peer over the whole of `topic`."""
    if peer.module == "river_alone":
        return await ask(children, peer.module, [str(events)])
    more = [f"{topic}-{peer.module}"] if peer.module in ("plain_agent", "quix_app") else []
    return await ask(children, peer.module, [brokers, topic, str(partitions), str(events), *more])
