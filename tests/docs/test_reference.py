"""The checked-in reference is what the code says today, and nothing in it is without words."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from detectors import DETECTORS
from detectors.detector import Detector
from pipeline.cli.main import app
from pipeline.config.tree import Config
from pipeline.formats import FORMATS
from pipeline.formats.format import SEES_ALL
from pipeline.metrics import metric_names
from pipeline.reference import commands, detectors, messages, pages, settings, tables, topics
from pipeline.reference.words import field_words, summary
from schemas.generate import TYPES
from schemas.rows import COPIES, TABLES

MADE = pages.pages()


def test_the_checked_in_pages_are_what_the_code_says() -> None:
    on_disk = {path.name: path.read_text() for path in pages.FOLDER.glob("*.md")}
    assert on_disk == MADE, "run `python -m pipeline.reference`"


def test_the_pages_are_written_anew_and_old_ones_go(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("of a subject that is gone")
    pages.write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == MADE


def test_every_setting_says_what_it_does() -> None:
    for path, kind in settings.sections(Config):
        said = field_words(kind)
        fields = settings.settings_of(kind)
        assert not [f"{path} {field.name}" for field in fields if not said[field.name]]
        assert not fields or summary(kind), path


def test_every_knob_of_a_detector_says_what_it_does_and_no_words_are_left_over() -> None:
    knobs = {
        f"{detector.name}.{field.name}": words
        for detector in DETECTORS
        for field, words in detectors.knobs_of(detector)
    }
    assert not [name for name, words in knobs.items() if not words]
    assert detectors.KNOBS.keys() <= knobs.keys()


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_every_detector_says_what_it_finds_what_it_misses_and_what_misleads_it(detector: Detector) -> None:
    module = importlib.import_module(detector.score.__module__)
    first, parts = detectors.parts_of(module)
    assert first.endswith(".")
    assert tuple(parts) == detectors.PARTS
    assert all(len(words) > 30 for words in parts.values())


@pytest.mark.parametrize("module", detectors.TOPOLOGIES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_so_does_every_topology(module: ModuleType) -> None:
    assert tuple(detectors.parts_of(module)[1]) == detectors.PARTS


@pytest.mark.parametrize("name", FORMATS)
def test_every_input_format_says_where_the_key_is_what_it_leaves_blind_and_how_its_fields_map(name: str) -> None:
    [section] = [part for part in MADE["formats.md"].split("\n## ") if part.startswith(f"{name}\n")]
    assert f"Key id: {FORMATS[name].key}." in section
    assert f"Address: {FORMATS[name].address}." in section
    assert "Source: " in section
    assert ("It tells all" in section) == (FORMATS[name].sees == SEES_ALL)
    assert FORMATS[name].lines or {"| `ts_us` |", "| `key_id` |"} <= {
        line[: line.index("|", 2) + 1] for line in section.splitlines() if line.startswith("| `")
    }


def test_every_field_of_a_message_says_what_it_is() -> None:
    for name, kind in TYPES.items():
        for part in [kind, *messages.inner(kind)]:
            assert not [f"{name} {part.__name__}.{field}" for field, words in field_words(part).items() if not words]


def test_every_column_says_what_it_is_and_every_table_how_long_it_is_kept() -> None:
    assert {made.name for made in tables.statements() if not made.select} == set(TABLES) | set(COPIES)
    for name in TABLES:
        assert not [f"{name}.{column}" for column, words in tables.words_of(name).items() if not words]
    assert MADE["tables.md"].count("\nKept ") == len(TABLES)


def test_every_topic_metric_and_command_has_its_line() -> None:
    assert all(f"`{getattr(Config().topics, name)}`" in MADE["topics.md"] for name in Config().topics.__struct_fields__)
    assert not [line for line in topics.page().splitlines() if line.endswith("|  |")]
    assert all(f"`{name}" in MADE["metrics.md"] for name in metric_names())
    sections = [path for path, _ in commands.commands(commands.root(), "keywatch")]
    assert len(sections) > 50
    assert all(f"\n## {path}\n" in MADE["commands.md"] for path in sections)


def test_every_command_option_and_argument_has_help() -> None:
    silent = [
        f"{path} {parameter.name}"
        for path, command in commands.commands(commands.root(), "keywatch")
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert silent == []


def test_the_schema_for_editors_says_what_settings_do() -> None:
    told = json.loads(CliRunner().invoke(app, ["config", "schema"]).stdout)
    about = told["$defs"]["Kafka"]["properties"]["brokers"]
    assert about["description"] == field_words(type(Config().kafka))["brokers"]
