"""`keywatch console` and `top`: looking on."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.options import ConfigFile, Shadow, load, one_of
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
        raise ConfigError(f"the console needs {error.name}: install the extra 'console' of this package") from error
    settings = load(config)
    if port >= 0:
        settings = msgspec.structs.replace(settings, console=msgspec.structs.replace(settings.console, port=port))
    return main(settings)


@guarded
def top(
    config: ConfigFile = None,
    shadow: Shadow = "",
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.2, max=3600)] = 2.0,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json (one look).")] = "table",
) -> int:
    """What goes on now: open incidents and the keys that are used most, against their usual. Ctrl-C ends it."""
    from pipeline.asking.top import main

    return main(load(config, shadow), once, one_of(output, "table", "json"), every_s)


def register(app: typer.Typer) -> None:
    """Add them."""
    app.command()(console)
    app.command()(top)
