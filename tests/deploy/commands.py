"""Command lines as containers run them, looked up in the command itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from pipeline.cli.main import app


def running(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that these words start, and what they say to it. Raises AssertionError where there is none."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    assert not hasattr(command, "commands") or command.invoke_without_command, f"keywatch {' '.join(words)}"
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    takes = [parameter for parameter in command.params if not parameter.opts[0].startswith("-")]
    at = 0
    while at < len(rest):
        if rest[at].startswith("--"):
            name = rest[at].partition("=")[0]
            assert name in options, f"keywatch {' '.join(words)}: no option {name}"
            at += 1 if options[name].is_flag or "=" in rest[at] else 2
        else:
            assert takes, f"keywatch {' '.join(words)}: {rest[at]} is no argument of it"
            at += 1
    return command, rest
