"""`keywatch traffic`: something to look at on the first day."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.options import ConfigFile, load


@guarded
def traffic(
    config: ConfigFile = None,
    attacks: Annotated[bool, typer.Option(help="Also the demo's attacks, once, two minutes after the start.")] = True,
) -> int:
    """The demo's 200 clients against your broker, until stopped. For a look; never where real requests are."""
    from pipeline.runners.traffic import main

    return main(load(config), attacks)


def register(app: typer.Typer) -> None:
    """Add it."""
    app.command()(traffic)
