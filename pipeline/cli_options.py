"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="KEYWATCH_CONFIG", help="TOML file; KEYWATCH_* variables override it.")
]
Shadow = Annotated[str, typer.Option(help="Of the shadow of this name.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def load(path: Path | None, shadow: str = "") -> Any:
    """The configuration, or that of its shadow; imported only now. Raises ConfigError."""
    from pipeline import config_file
    from pipeline.shadow import shadowed

    return shadowed(config_file.load(path), shadow)
