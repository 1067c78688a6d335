"""What any node may answer is asked of one that does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.administration import Administrator

NODES = range(1, 6)


class Nodes:
    """Some are dead: in place of aiokafka's client."""

    def __init__(self, dead: set[int]) -> None:
        self._dead = dead
        self.asked: list[int] = []
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=node) for node in NODES])

    async def send(self, node: int, request: Any) -> tuple[int, Any]:
        """Its number and what it was asked."""
        self.asked.append(node)
        if node in self._dead:
            raise NodeNotReadyError if node % 2 else KafkaConnectionError
        return node, request


def ask(nodes: Nodes, node: int | None = None) -> Any:
    admin = Administrator.__new__(Administrator)
    admin._client = nodes
    return asyncio.run(admin._send_request("what", node))


@given(st.sets(st.sampled_from(NODES), max_size=len(NODES) - 1))
def test_dead_nodes_are_passed_over_and_none_is_asked_twice(dead: set[int]) -> None:
    nodes = Nodes(dead)
    node, request = ask(nodes)
    assert (node not in dead, request, len(nodes.asked)) == (True, "what", len(set(nodes.asked)))


def test_where_all_are_dead_that_is_said() -> None:
    with pytest.raises(KafkaConnectionError, match="none of 5 nodes answers"):
        ask(Nodes(set(NODES)))


def test_what_one_node_alone_may_answer_is_asked_of_it_alone() -> None:
    nodes = Nodes({2})
    with pytest.raises(KafkaConnectionError):
        ask(nodes, 2)
    assert nodes.asked == [2]
