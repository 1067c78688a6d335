"""Prints what somebody should look at: `pip install aiokafka`, `python consume_incidents.py BROKERS [GROUP]`.

Each message is the whole incident at one revision (schemas/json/incident.v1.json). A message may come twice: what you
do with it should be keyed by (incident_id, revision), as the ticket's name is here. New fields come without notice.
"""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer


async def main(brokers: str, group: str = "sample") -> None:
    consumer = AIOKafkaConsumer(
        "api.incidents",
        bootstrap_servers=brokers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer:
        async for record in consumer:
            incident = json.loads(record.value)
            if incident["severity"] != "medium" and incident["change"] in ("opened", "escalated"):
                ticket = f"{incident['incident_id'][:12]}/{incident['revision']}"
                print(ticket, incident["severity"], incident["key_id"], incident["text"], sep="  ", flush=True)  # noqa: T201
            await consumer.commit()  # after the work: what was cut off comes again


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
