"""`keywatch erase`, `keywatch privacy` and `keywatch console-log`: whose data goes, when, and who has looked at it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.options import AsJson, ConfigFile, Output, Words, json_wanted, load, one_of

privacy_app = typer.Typer(help="What is kept of people, and for how long.", no_args_is_help=True)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@guarded
def erase(
    key: Annotated[str, typer.Argument(help="A key's public id.")] = "",
    owner: Annotated[str, typer.Option(help="All keys of this owner instead.")] = "",
    reason: Annotated[str, typer.Option(help="Why: it is written down with your name, and nothing else is.")] = "",
    dry_run: DryRun = False,
    wait: Annotated[float, typer.Option(min=0, max=900, help="Seconds to wait for the workers.")] = 30.0,
    config: ConfigFile = None,
    as_json: AsJson = False,
    output: Words = "text",
) -> int:
    """Erase what is kept of a key, or of an owner's keys: state, rows, what was said. Says what remains."""
    from pipeline.privacy.acts import Wish, erase_all

    plain = json_wanted(as_json, output)
    wish = Wish(key=key, owner=owner, reason=reason, dry_run=dry_run, wait_s=wait, as_json=plain)
    return erase_all(load(config), wish)


@privacy_app.command("truncate")
@guarded
def truncate(
    days: Annotated[int, typer.Option(min=-1, max=3650, help="Instead of privacy.truncate_addresses_days.")] = -1,
    dry_run: DryRun = False,
    every: Annotated[str, typer.Option(help="Again after this span (1d), until it is stopped.")] = "",
    config: ConfigFile = None,
) -> int:
    """Cut callers' addresses that are older to their /24 or /48; to be run daily."""
    from pipeline.privacy.acts import truncate_addresses
    from pipeline.repeating import repeated, span_s

    loaded, every_s = load(config), span_s(every)
    return repeated(lambda: truncate_addresses(loaded, days, dry_run), every_s)


@guarded
def console_log(
    since: Annotated[str, typer.Option(help="A span back (7d), or RFC 3339.")] = "1d",
    person: Annotated[str, typer.Option(help="Only this one's.")] = "",
    about: Annotated[str, typer.Option(help="Only pages whose path has this in it: a key, an incident.")] = "",
    output: Output = "table",
    config: ConfigFile = None,
) -> int:
    """Who looked at what in the console, and did what: the newest first."""
    from pipeline.privacy.acts import print_console_log

    return print_console_log(load(config), since, person, about, one_of(output, "table", "json", "csv"))


def register(root: typer.Typer) -> None:
    """Add them to `keywatch`."""
    root.command()(erase)
    root.add_typer(privacy_app, name="privacy")
    root.command("console-log")(console_log)
