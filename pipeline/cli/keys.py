"""`keywatch keys ...`: keys as they are used, declared, rotated, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli.guard import guarded
from pipeline.cli.options import AsJson, ConfigFile, Output, load, one_of
from pipeline.errors import ConfigError


class KeysGroup(TyperGroup):
    """`keys KEY` shows a key, as it always did; what is no sub-command is one of `keys show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` in front where no sub-command is named; a shell that completes one has none yet."""
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)
        if not (args and (args[0] in self.commands or args[0] in ("--help", "--install-completion"))):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=KeysGroup, help="Keys: what they do, what is wrong with them, what they could be held to, how rotations go.",
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
@guarded
def show(
    key: Annotated[str, typer.Argument(help="A key id; nothing for the 50 busiest.")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
    output: Output = "table",
) -> int | None:
    """Requests, errors, last use and places of a key, or of the 50 busiest; also without the word `show`."""
    from pipeline.asking.answers import print_keys

    return print_keys(load(config), key, as_json, one_of(output, "table", "json", "csv"))


@app.command("import")
@guarded
def import_keys(
    file: Annotated[Path | None, typer.Argument(help="The export to read.")] = None,
    config: ConfigFile = None,
    source: Annotated[str, typer.Option("--from", help="csv, kong or aws.")] = "csv",
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> int:
    """Declare the keys of an export: show the difference, write it when told to."""
    from pipeline.keys.declare import import_keys as run

    settings = load(config)
    if file is None:
        raise ConfigError("keywatch keys import needs the FILE to read")
    return run(settings, file, source, yes)


@app.command()
@guarded
def audit(
    check: Annotated[list[str] | None, typer.Option(help="Only this check; may be given again.")] = None,
    fail_on: Annotated[
        list[str] | None, typer.Option(help="Exit code 1 from this grade on, or on this check; may be given again.")
    ] = None,
    config: ConfigFile = None,
    output: Output = "table",
) -> int:
    """Keys that are a risk as they lie there: leaked, departed, over age, over-privileged, unused, open to all."""
    from pipeline.asking.keys import print_audit

    return print_audit(load(config), check or [], fail_on or [], one_of(output, "table", "json", "csv"))


@app.command()
@guarded
def manifest(
    key: Annotated[str, typer.Argument(help="A key id.")],
    gateway: Annotated[str, typer.Option("--for", help="json (neutral), kong or aws.")] = "json",
    days: Annotated[int, typer.Option(min=0, max=400, help="How far to look back; 30 by default.")] = 0,
    head_room: Annotated[
        float, typer.Option(min=0, max=100, help="Of limits over the busiest minute; key_life.head_room by default.")
    ] = 0.0,
    config: ConfigFile = None,
) -> int:
    """What the key really does, as a policy for the gateway; what it leaves open goes to stderr."""
    from pipeline.asking.keys import print_manifest

    return print_manifest(load(config), key, gateway, days, head_room)


@app.command()
@guarded
def rotations(
    fail_on: Annotated[
        list[str] | None, typer.Option(help="Exit code 1 where one is due, overdue or drained; may be given again.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Also write them for Prometheus' textfile collector to this file.")
    ] = None,
    config: ConfigFile = None,
    output: Output = "table",
) -> int:
    """How much traffic is still on old keys, from where, and when each is safe to revoke."""
    from pipeline.asking.keys import print_rotations

    return print_rotations(load(config), fail_on or [], metrics, one_of(output, "table", "json", "csv"))


def register(root: typer.Typer) -> None:
    """Add them to `keywatch`."""
    root.add_typer(app, name="keys")
