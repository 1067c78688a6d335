"""Asking the cluster itself: topics, groups, offsets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError

from pipeline.config.tree import Kafka
from pipeline.sinks.kafka import by_consequence, client_settings

AWAY = (NodeNotReadyError, KafkaConnectionError)
"""A node that does not answer; the cluster lists one for some seconds after it has died."""


class Administrator(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka is not typed
    """What any node may answer is asked of each until one does: aiokafka asks one at random, be it dead or not."""

    async def _send_request(self, request: Any, node_id: int | None = None) -> Any:
        if node_id is not None:
            return await super()._send_request(request, node_id)
        nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
        silent: KafkaError | None = None
        for node in random.sample(nodes, len(nodes)):
            try:
                return await super()._send_request(request, node)
            except AWAY as error:
                silent = error
        raise KafkaConnectionError(f"none of {len(nodes)} nodes answers") from silent


@asynccontextmanager
async def administrator(kafka: Kafka) -> AsyncIterator[Administrator]:
    """Connected inside. Raises what `by_consequence` makes of an answer that fails."""
    admin = Administrator(**client_settings(kafka))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise await by_consequence(kafka, error) from error
    finally:
        await admin.close()
