"""A shadow reads what production reads, and writes nothing that anybody acts on."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from detectors import compile
from detectors.compile import source_hash
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.runners.parts import JUDGING, config_version, product
from pipeline.shadow import shadowed


def test_a_shadow_reads_the_same_topics_and_shares_no_output_group_or_table_with_production() -> None:
    ours, shadow = Config(), shadowed(Config(), "new")
    for name in ("requests", "keys", "control"):
        assert getattr(shadow.topics, name) == getattr(ours.topics, name)
    for name in ("incidents", "rejected", "pages"):
        assert getattr(shadow.topics, name) == f"{getattr(ours.topics, name)}.shadow-new"
    assert shadow.kafka.group != ours.kafka.group
    assert shadow.clickhouse.database == "keywatch_shadow_new"
    assert not shadow.worker.ticks
    assert config_version(shadow) == config_version(ours), "it judges as its file says"


def test_no_name_is_production_itself() -> None:
    config = Config()
    assert shadowed(config, "") is config


def test_another_version_of_the_product_is_another_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number, or any line of what judges: the same settings come to other findings."""
    ours = config_version(Config())
    monkeypatch.setattr("pipeline.runners.parts.product", lambda: ("0.1.0", "another detector"))
    assert config_version(Config()) != ours
    monkeypatch.undo()
    assert config_version(Config()) == ours
    number, *sources = product()
    assert number == version("keywatch")
    assert sources[0] == source_hash(Path(compile.__file__).parent)
    assert len(set(sources)) == len(sources) == 1 + len(JUDGING)


@pytest.mark.parametrize("name", ["New", "a b", "x" * 33, "../x", "a-b"])
def test_a_name_that_is_no_name_of_a_database_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="small letters, digits and _"):
        shadowed(Config(), name)
