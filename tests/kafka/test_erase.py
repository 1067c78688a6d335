"""`keywatch erase` over a real broker and a running worker: of the key nothing is left that is not said to be left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from pipeline.config.tree import Config
from pipeline.control import operate
from pipeline.control.operate import Word, give_feedback
from pipeline.control.topic import read_controls
from pipeline.privacy import erase
from pipeline.privacy.acts import Wish, erase_all
from pipeline.sinks.connect import connect
from pipeline.sinks.kafka import read_pages
from pipeline.state.partition import State
from pipeline.state.recover import fill, load
from pipeline.state.repartition import Holder
from schemas.control import Forget
from schemas.rows import TABLES
from tests.deploy.filled import count_days
from tests.kafka.deployment import Deployment, produce
from tests.kafka.test_operating import LOG, incidents_of, newest, opening_at, watched  # noqa: F401

pytestmark = pytest.mark.kafka


def states(deployment: Deployment) -> dict[str, bytes]:
    """Key id -> its record, of all partitions' newest checkpoints."""
    pages = asyncio.run(read_pages(deployment.config.kafka, deployment.config.topics.pages, range(4)))
    found: dict[str, bytes] = {}
    for number, each in pages.items():
        state = State()
        holder: Any = Holder(state)
        fill(holder, load(number, each, None))
        found |= {key: state.keys.data[slot].tobytes() for key, slot in state.slots.items()}
    return found


def naming(client: Client, key: str) -> dict[str, int]:
    """Rows of each table in which the key's id stands anywhere."""
    word = {"word": rf"(^|[^A-Za-z0-9_]){key}($|[^A-Za-z0-9_])"}
    return {
        table: rows
        for table in (*TABLES, "hours", "places", "days", "place_days")
        if (rows := client.query(
            f"SELECT count() FROM {table} WHERE match(toString(tuple(*)), {{word:String}})", parameters=word
        ).result_rows[0][0])
    }  # fmt: skip


def test_a_key_is_erased_while_a_worker_runs_and_begins_anew(
    watched: tuple[Deployment, Config],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    deployment, config = watched
    client = connect(config.clickhouse, config.clickhouse.database)
    at = opening_at(LOG) + 3
    produce(deployment, LOG[:at])
    worker = deployment.start()
    deployment.wait_drained()
    (told,) = newest(incidents_of(deployment)).values()
    deployment.wait(lambda: "evidence" in naming(client, told.key_id), "its evidence in ClickHouse")
    assert operate.mute(config, ("", "", "somebody"), "7d", "of another", force=True) == 0
    word = Word(incident=told.incident_id, verdict="malicious", reason="stolen", wait_s=0)
    assert give_feedback(config, word) == 0
    count_days(client)
    had = naming(client, told.key_id)
    assert had.keys() >= {"requests", "requests_1h", "key_source_1h", "keys_last_used", "findings", "incidents", "days"}
    others = {table: client.query(f"SELECT count() FROM {table}").result_rows[0][0] - had[table] for table in had}
    assert told.key_id in states(deployment)
    capsys.readouterr()

    wish = Wish(key=told.key_id, reason="asked by its owner", wait_s=90.0, as_json=True)
    assert erase_all(config, wish) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["left"] == dict.fromkeys(erase.ERASED, 0)

    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    left = naming(client, told.key_id)
    assert left.keys() <= {"controls", "applied"} | erase.KEPT.keys(), "who asked for it, when and why, and the audits"
    for table, rows in others.items():
        assert client.query(f"SELECT count() FROM {table}").result_rows[0][0] - left.get(table, 0) >= rows, table
    assert told.key_id not in states(deployment)
    controls = asyncio.run(read_controls(config))
    kinds = [type(each.control) for each in controls.said if getattr(each.control, "key_id", "") == told.key_id]
    assert kinds == [Forget], "what was said before is taken back"
    last = newest(incidents_of(deployment))[told.incident_id]
    assert (last.state, last.text, last.findings, last.label) == ("closed", "the key was erased", (), "")

    again = deployment.start()
    produce(deployment, LOG[at:])
    deployment.wait_drained()
    assert deployment.stop(again) == 0, deployment.log_of(again)
    began = client.query(
        "SELECT min(first_used) FROM v_keys_last_used WHERE key_id = {key:String}", parameters={"key": told.key_id}
    ).result_rows[0][0]
    assert began.timestamp() * 1e6 > msgspec.json.decode(LOG[at - 1][1] or b"")["ts_us"] - 3_600_000_000
    client.close()
