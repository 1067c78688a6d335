"""`keywatch keys import`: compare an export of keys with the topic, show the difference, write it when told to.

Ids and declarations only: `key_import` refuses exports that hold secrets. Nothing is ever removed by an import.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import typer

from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import publish_keys, read_catalogue
from pipeline.keys.key_import import Changes, Kind, diff, read_keys


def import_keys(config: Config, file: Path, source: str, yes: bool) -> int:
    """Exit code: 0 written or nothing to write, 1 where the user said no. Raises ConfigError, Fatal, Retry."""
    wanted = read_keys(file, cast("Kind", source))
    current = asyncio.run(read_catalogue(config))
    changes = diff([key for _, key in current.items()], wanted)
    for line in changes.lines():
        typer.echo(line)
    typer.echo(summary(changes))
    if not (changes.added or changes.changed):
        return 0
    if not yes and not _agreed():
        return 1
    written = [*changes.added, *(after for _, after in changes.changed)]
    count = asyncio.run(publish_keys(config, written))
    typer.echo(f"{count} keys written to {config.topics.keys}")
    return 0


def summary(changes: Changes) -> str:
    """The difference in one line."""
    parts = (len(changes.added), len(changes.changed), changes.unchanged, len(changes.missing))
    return "{} new, {} changed, {} as they were, {} declared but not in this import".format(*parts)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nothing was written: say --yes where nobody can be asked")
    return typer.confirm("write this?")
