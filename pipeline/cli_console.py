"""`keywatch console`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli_guard import guarded
from pipeline.cli_options import ConfigFile, load
from pipeline.errors import ConfigError


@guarded
def console(
    config: ConfigFile = None,
    port: Annotated[int, typer.Option(help="Instead of console.port; -1 is that.", min=-1, max=65_535)] = -1,
) -> int:
    """The web page of the night shift: incidents that explain themselves, keys, what was done, and the kill switch."""
    import msgspec

    try:
        from pipeline.console.app import main
    except ImportError as error:
        raise ConfigError(f"the console needs {error.name}: install keywatch[console]") from error
    settings = load(config)
    if port >= 0:
        settings = msgspec.structs.replace(settings, console=msgspec.structs.replace(settings.console, port=port))
    return main(settings)


def register(app: typer.Typer) -> None:
    """Add it."""
    app.command()(console)
