"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="KEYWATCH_CONFIG", help="TOML file; KEYWATCH_* variables override it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def load(path: Path | None) -> Any:
    """The configuration, imported only now. Raises ConfigError."""
    from pipeline import config_file

    return config_file.load(path)
