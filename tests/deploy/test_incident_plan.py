"""The plan for the night names only commands and options that exist, and rooms of the runbook that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from pipeline.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
PLAN = (DEPLOY / "INCIDENT_PLAN.md").read_text()
COMMANDS = sorted(
    {line.strip() for line in PLAN.splitlines() if re.match(r" {4,}keywatch ", line)}
    | {found for found in re.findall(r"`(keywatch [^`]+)`", PLAN)}
)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and what they say to it."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, words
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_every_command_of_the_plan_exists_with_its_options() -> None:
    assert len(COMMANDS) >= 20
    for line in COMMANDS:
        command, said = command_of(shlex.split(line))
        known = {option for parameter in command.params for option in parameter.opts}
        options = [word for word in said if re.match(r"--?[a-z]", word)]
        assert set(options) <= known, line


def test_required_options_are_given() -> None:
    for line in COMMANDS:
        command, said = command_of(shlex.split(line))
        if len(said) < 2:  # named in a sentence
            continue
        for parameter in command.params:
            needed = parameter.required and parameter.opts[0].startswith("--")
            assert not needed or set(parameter.opts) & set(said), (line, parameter.opts)


def test_the_plan_asks_for_an_approvers_key_only_where_the_command_takes_one() -> None:
    named = [command_of(["keywatch", "respond", name])[0] for name in ("act", "undo")]
    takes = [any("--key-file" in parameter.opts for parameter in command.params) for command in named]
    assert takes == [True, True]
    for line in COMMANDS:  # an undo takes one where it is forced
        assert "--key-file" not in line or "respond act" in line or "--force" in line, line
    assert "each needs your approver's key" not in PLAN


def test_files_that_the_plan_points_to_are_there() -> None:
    for name in re.findall(r"\]\(([^)]+)\)", PLAN):
        assert (DEPLOY / name).exists()
    assert (DEPLOY.parent / "tests" / "deploy" / Path(__file__).name).exists()
