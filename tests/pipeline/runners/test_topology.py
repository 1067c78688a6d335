"""Another topology is its topic in the place of the requests, with pages, group and port of its own."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.runners.topology import TOPOLOGIES, check, parts_of, settings_of
from pipeline.sinks.topics import topic_specs


def test_the_keys_topology_is_the_configuration_as_it_stands() -> None:
    config = Config()
    assert settings_of(config, "keys") is config


@pytest.mark.parametrize("topology", ["sources", "lifecycle"])
def test_another_one_shares_nothing_that_two_workers_could_fight_over(topology: str) -> None:
    config = Config()
    other = settings_of(config, topology)
    assert other.kafka.group != config.kafka.group
    assert other.topics.requests != config.topics.requests
    assert other.topics.pages != config.topics.pages
    assert other.worker.metrics_port != config.worker.metrics_port
    assert other.topics.incidents == config.topics.incidents


def test_all_are_told_apart() -> None:
    seen = {(s.kafka.group, s.topics.pages, s.worker.metrics_port) for s in map(_settings, TOPOLOGIES)}
    assert len(seen) == len(TOPOLOGIES)


def _settings(topology: str) -> Config:
    return settings_of(Config(), topology)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_topic_is_asked_for_twice(topology: str) -> None:
    names = [spec.name for spec in topic_specs(_settings(topology))]
    assert len(names) == len(set(names))


def test_an_unknown_one_is_a_clear_line() -> None:
    with pytest.raises(ConfigError, match="sources, lifecycle"):
        check("stars")
    result = CliRunner().invoke(app, ["worker", "--topology", "stars"])
    assert result.exit_code == 2


@pytest.mark.parametrize("topology", ["sources", "lifecycle"])
async def test_its_core_opens_with_its_side_inputs(topology: str) -> None:
    config, parts = _settings(topology), parts_of(topology)
    sides = await parts.read_sides(config)
    core = parts.open_core(0, config, sides, "epoch", 4)
    assert core.next_offset == -1
    assert parts.section == topology
    assert await parts.read_sides(config) is sides
