"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="KEYWATCH_CONFIG", help="TOML file; KEYWATCH_* variables override it.")
]
Shadow = Annotated[str, typer.Option(help="Of the shadow of this name.")]
Output = Annotated[str, typer.Option("--output", "-o", help="table, json or csv.")]
Words = Annotated[str, typer.Option("--output", "-o", help="text or json.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def load(path: Path | None, shadow: str = "") -> Any:
    """The configuration, or that of its shadow; imported only now. Raises ConfigError."""
    from pipeline import config_file
    from pipeline.shadow import shadowed

    return shadowed(config_file.load(path), shadow)


def json_wanted(as_json: bool, output: str) -> bool:
    """Of a command whose answer is one thing: `--json`, or `-o json` as everywhere. Raises ConfigError."""
    return one_of(output, "text", "json") == "json" or as_json


def one_of(name: str, *known: str) -> str:
    """The output that was asked for. Raises ConfigError for one that the command doesn't have."""
    if name not in known:
        raise ConfigError(f"unknown output '{name}'; there are {', '.join(known[:-1])} and {known[-1]}")
    return name
