"""What several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="KEYWATCH_CONFIG", help="TOML file; KEYWATCH_* variables override it.")
]
Shadow = Annotated[str, typer.Option(help="Of the shadow of this name.")]


def completing(*words: str) -> Callable[[str], list[str]]:
    """What the shell offers for an option's value; Typer knows the parameter by its name."""

    def offered(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return offered


def formats(incomplete: str) -> list[str]:
    """Names of input formats; imported only now."""
    from pipeline.formats import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


Output = Annotated[
    str,
    typer.Option("--output", "-o", help="table, json or csv.", autocompletion=completing("table", "json", "csv")),
]
Words = Annotated[str, typer.Option("--output", "-o", help="text or json.", autocompletion=completing("text", "json"))]
LogFormat = Annotated[
    str, typer.Option("--format", help="native, cloudtrail, combined, kong, ...", autocompletion=formats)
]
KeyFrom = Annotated[
    str, typer.Option(help="The field that names the key, as intake.key_field; combined logs: user or address.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def load(path: Path | None, shadow: str = "") -> Any:
    """The configuration, or that of its shadow; imported only now. Raises ConfigError."""
    from pipeline.config import file as config_file
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
