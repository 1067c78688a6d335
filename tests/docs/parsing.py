"""A command line through the parser of `keywatch` itself: what it names, and what is wrong with it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import typer

from pipeline.cli.main import app

VALUES: Final = {
    "INCIDENT": "abababababab", "ID": "abababababab", "KEY": "key_warehouse_08", "LEAK": "efef", "N": "8", "T": "2h",
    "DATE": "2025-09-01T00:00:00Z", "LOG": "access.log", "OLD_LOGS": "access.log", "F": "combined",
    "OTHER.toml": "other.toml", "FILE": "access.log", "URL": "https://github.com/acme/shop",
}  # fmt: skip
"""What stands for something of the reader's, and what it is in the world of the tests."""


def filled(words: Sequence[str]) -> list[str]:
    """With values in the place of what stands for them."""
    return [VALUES.get(word, word) for word in words]


@functools.cache
def _root() -> Any:
    return typer.main.get_command(app)


def parse(words: Sequence[str], whole: bool) -> str:
    """Name of the command that `keywatch WORDS` runs. Raises what the parser raises.

    What is only named in a sentence may lack what it needs, and may stop at a group.
    """
    names: list[str] = []
    command, rest, context = _root(), filled(words), None
    while True:
        try:
            context = command.make_context(names[-1] if names else "keywatch", list(rest), parent=context)
        except typer.Exit:
            return " ".join(names)  # --help, or a group alone
        except typer.BadParameter as error:
            if whole or type(error).__name__ != "MissingParameter":
                raise
            return " ".join(names)
        below = [*context._protected_args, *context.args] if hasattr(command, "commands") else []
        if not below:
            return " ".join(names)
        name, command, rest = command.resolve_command(context, below)
        names.append(name)
