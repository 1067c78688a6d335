"""Teaching a running worker on a real Kafka: feedback and mutes, a kill between, history learned, and replays of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import ClickHouse, Config
from pipeline.control import operate
from pipeline.control.operate import Word, give_feedback
from pipeline.control.topic import read_controls
from pipeline.errors import ConfigError
from pipeline.migrate import migrate
from pipeline.runners.learn import LearnOptions
from pipeline.runners.learn import main as learn
from pipeline.runners.replay import ReplayOptions, run
from pipeline.sinks.connect import connect
from schemas.control import Feedback
from schemas.incident import Incident
from tests.kafka.deployment import Deployment, pid_of, produce, read_topic
from tests.kafka.test_topic_range import keys_file
from tests.pipeline.log_of_requests import Record, log

pytestmark = pytest.mark.kafka

LOG = log(3, events=3_000)


def incidents_of(deployment: Deployment) -> list[Incident]:
    """In the order they were published."""
    records = asyncio.run(read_topic(deployment.config, deployment.config.topics.incidents))
    return [msgspec.json.decode(record.value, type=Incident) for record in records]


def newest(incidents: list[Incident]) -> dict[str, Incident]:
    found: dict[str, Incident] = {}
    for incident in incidents:
        found[incident.incident_id] = max(found.get(incident.incident_id, incident), incident, key=lambda x: x.revision)
    return found


@pytest.fixture
def watched(deploy: Callable[..., Deployment], clickhouse: ClickHouse) -> Iterator[tuple[Deployment, Config]]:
    """A deployment with the real core whose rows are in ClickHouse, and the configuration of its operators."""
    deployment = deploy()
    deployment.core = "real"
    address = {"url": clickhouse.url, "database": clickhouse.database, "insert_s": 0.2}
    deployment.environment = {"KW_CLICKHOUSE": msgspec.json.encode(address).decode()}
    yield deployment, msgspec.structs.replace(deployment.config, clickhouse=clickhouse)


def toml_of(folder: Path, config: Config) -> Path:
    topics = "\n".join(f'{name} = "{getattr(config.topics, name)}"' for name in config.topics.__struct_fields__)
    path = folder / "keywatch.toml"
    path.write_text(
        f'[kafka]\nbrokers = "{config.kafka.brokers}"\n[topics]\n{topics}\n'
        f'[clickhouse]\nurl = "{config.clickhouse.url}"\ndatabase = "{config.clickhouse.database}"\n'
    )
    return path


def opening_at(records: list[Record]) -> int:
    """Index of the record after which the first incident of this log is open, in any partition's order."""
    from tests.pipeline.log_of_requests import core, slices

    judge = core()
    for i in range(len(records)):
        if judge.process(slices(records[i : i + 1], [], i)[0]).incidents:
            return i + 1
    raise AssertionError("no incident")


def test_feedback_takes_effect_in_a_running_worker_survives_its_kill_and_replays(
    watched: tuple[Deployment, Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment, config = watched
    at = opening_at(LOG) + 3
    produce(deployment, LOG[:at])
    worker = deployment.start()
    deployment.wait(lambda: bool(incidents_of(deployment)), "an incident")
    (told,) = newest(incidents_of(deployment)).values()
    deployment.wait(lambda: bool(_rows(config, "SELECT count() FROM v_evidence")[0][0]), "its evidence in ClickHouse")
    word = Word(incident=told.incident_id, verdict="expected", reason="moved", until="30d", owner="alice", wait_s=0)
    assert give_feedback(config, word) == 0
    assert operate.mute(config, ("pk_5", "", ""), "7d", "load test") == 0
    controls = asyncio.run(read_controls(config))
    (feedback,) = [each.control for each in controls.said if isinstance(each.control, Feedback)]
    assert feedback.events and feedback.until
    version = f"SELECT countIf(version_id = '{controls.version}') FROM v_adoptions WHERE input = 'controls'"
    deployment.wait(lambda: _rows(config, version)[0][0] == 4, "adopted by all partitions")
    os.kill(pid_of(worker), signal.SIGKILL)
    deployment.wait_session_over()
    again = deployment.start()
    deployment.wait_ready(again)
    produce(deployment, LOG[at:])
    deployment.wait_drained()
    assert deployment.stop(again) == 0, deployment.log_of(again)
    published = newest(incidents_of(deployment))
    assert published[told.incident_id].label == "expected" and published[told.incident_id].state == "closed"
    capsys.readouterr()
    again_said = msgspec.structs.replace(word, reason="again")  # replaces what was said; nobody listens any more
    assert give_feedback(config, again_said) == 0
    assert "not yet in effect" in capsys.readouterr().out
    (applied,) = _rows(config, "SELECT effect FROM v_applied")
    assert "closed the incident" in applied[0]
    options = ReplayOptions(topic=config.topics.requests, config=toml_of(tmp_path, config), keys=keys_file(tmp_path))
    replayed = run(msgspec.structs.replace(options, controls="adopted"))
    assert {x: _seen(i) for x, i in replayed.incidents.items()} == {x: _seen(i) for x, i in published.items()}
    unheard = run(options)
    assert unheard.incidents[told.incident_id].label == ""


def _seen(incident: Incident) -> tuple[Any, ...]:
    return incident.revision, incident.state, incident.label, incident.offset, incident.text, incident.closed_at


def _rows(config: Config, sql: str) -> list[tuple[Any, ...]]:
    client = connect(config.clickhouse, config.clickhouse.database)
    try:
        return [tuple(row) for row in client.query(sql).result_rows]
    finally:
        client.close()


def history(folder: Path, records: list[Record]) -> Path:
    path = folder / "history.jsonl"
    path.write_bytes(b"\n".join(value for _, value, _ in records if value))
    return path


def test_a_worker_goes_on_from_learned_history_and_tells_nothing_of_it(
    deploy: Callable[..., Deployment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log's first days are history; the attack comes live: it opens as if all of it had been live."""
    live = deploy()
    live.core = "real"
    produce(live, LOG)
    worker = live.start()
    live.wait_ready(worker)
    live.wait_drained()
    assert live.stop(worker) == 0
    primed = deploy()
    primed.core = "real"
    at = opening_at(LOG) - 40
    assert learn(primed.config, LearnOptions(paths=(history(tmp_path, LOG[:at]),), keys=keys_file(tmp_path))) == 0
    assert "learned" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds state already"):
        learn(primed.config, LearnOptions(paths=(history(tmp_path, LOG[:at]),)))
    assert not incidents_of(primed)
    produce(primed, LOG[at:])
    worker = primed.start()
    primed.wait_ready(worker)
    primed.wait_drained()
    assert primed.stop(worker) == 0, primed.log_of(worker)
    assert set(newest(incidents_of(primed))) == set(newest(incidents_of(live)))


def test_a_worker_goes_on_where_the_learned_part_of_its_own_topic_ended(
    deploy: Callable[..., Deployment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the last two minutes, which are not late, would be judged twice."""
    deployment = deploy()
    deployment.core = "real"
    at = opening_at(LOG) - 40
    produce(deployment, LOG[:at])
    options = LearnOptions(topic=deployment.config.topics.requests, keys=keys_file(tmp_path))
    assert learn(deployment.config, options) == 0
    assert "where this history ended" in capsys.readouterr().out
    assert deployment.committed() == deployment.ends()
    worker = deployment.start()
    deployment.wait_ready(worker)
    produce(deployment, LOG[at:])
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert newest(incidents_of(deployment))


def test_migrations_and_topics_of_a_shadow_are_its_own(clickhouse: ClickHouse) -> None:
    from pipeline.shadow import shadowed

    config = shadowed(Config(clickhouse=clickhouse), "candidate")
    assert config.topics.incidents != Config().topics.incidents
    assert config.topics.requests == Config().topics.requests
    try:
        assert migrate(config.clickhouse)
    finally:
        client = connect(clickhouse, None)
        client.command(f"DROP DATABASE {config.clickhouse.database}")
        client.close()
