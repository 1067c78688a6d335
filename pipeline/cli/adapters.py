"""`keywatch adapters`: what the gateways' adapters can do (`matrix`), and whether those in use may (`check`)."""

from __future__ import annotations

import json

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.listing import listed
from pipeline.cli.options import AsJson, ConfigFile, Output, Words, json_wanted, load

app = typer.Typer(help="The adapters by which the responder acts on gateways.", no_args_is_help=True)


@app.command()
@guarded
def matrix(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """Rung by rung: what each adapter can do, what that hits, how soon, and whether it can be undone."""
    from pipeline.respond.adapters import report

    found = report.rows(load(config).respond)
    return listed(
        output,
        as_json,
        lambda plain: typer.echo(json.dumps([row.as_dict() for row in found]) if plain else report.table(found)),
    )


@app.command()
@guarded
def check(config: ConfigFile = None, as_json: AsJson = False, output: Words = "text") -> int:
    """Ask each gateway in use whether our credential works and what stands in the way. Changes nothing."""
    import asyncio

    from pipeline.respond.adapters import report

    plain = json_wanted(as_json, output)
    found = asyncio.run(report.check(load(config).respond))
    if plain:
        typer.echo(json.dumps(found))
    for name, problems in found.items() if not plain else ():
        for line in problems or ["ok"]:
            typer.echo(f"{name:15} {line}")
    if not found and not plain:
        typer.echo("no adapter is in use: set respond.adapters")
    return 1 if any(found.values()) else 0
