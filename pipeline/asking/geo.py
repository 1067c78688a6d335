"""`keywatch geo info`: the databases in use, and where one address is."""

from __future__ import annotations

import typer

from pipeline.asking.answers import print_json
from pipeline.geo.provider import Geo


def print_geo(geo: Geo, address: str, as_json: bool) -> int:
    """Print them, and the place of `address` where one is asked for; returns 0."""
    place = geo.look_up(address) if address else None
    if as_json:
        return print_json({"databases": geo.databases(), "place": place})
    for base in geo.databases():
        typer.echo(f"{base.name}  {base.built_at:%Y-%m-%d}  {base.description}  {base.path}")
    if place is not None:
        typer.echo(repr(place))
    return 0
