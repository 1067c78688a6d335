"""`keywatch investigate`, `hunt` and `leaks`: what happened, who else was touched, what is public."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.listing import listed
from pipeline.cli.options import ConfigFile, Output, Words, load, one_of

From = Annotated[str, typer.Option("--from", help="RFC 3339, or a span back from --to (6h, 14d).")]
To = Annotated[str, typer.Option("--to", help="RFC 3339; the newest use by default.")]

leaks_app = typer.Typer(help="Keys that are public: reports, and who has used them since.", no_args_is_help=True)


@guarded
def investigate(
    subject: Annotated[str, typer.Argument(help="A key id, or an incident's id or a beginning that only one has.")],
    from_: From = "",
    to: To = "",
    html: Annotated[Path | None, typer.Option(help="Write one HTML file.")] = None,
    markdown: Annotated[Path | None, typer.Option("--md", help="Write Markdown.")] = None,
    output: Words = "text",
    config: ConfigFile = None,
) -> int:
    """One report: timeline, scope, sources, responses, the normal before, likely cause, open questions, next steps."""
    from pipeline.asking.investigating import print_investigation

    files = (str(html or ""), str(markdown or ""))
    return print_investigation(load(config), subject, (from_, to), files, output)


@guarded
def hunt(
    ip: Annotated[str, typer.Option(help="An address: exact while kept whole (14 days), beyond by its network.")] = "",
    asn: Annotated[str, typer.Option(help="A network: AS64500 or 64500.")] = "",
    client: Annotated[str, typer.Option(help="A family of clients (curl); curl* is all that begin so.")] = "",
    route: Annotated[str, typer.Option(help="A route; /v1/admin* is all below it.")] = "",
    from_: From = "",
    to: To = "",
    output: Output = "table",
    config: ConfigFile = None,
) -> int:
    """Every key that an address, network, client or route touched: first, last, outcomes; the last 14 days."""
    from pipeline.asking.keys import print_hunt

    words = {"ip": ip, "asn": asn, "client": client, "route": route, "from": from_, "to": to}
    return print_hunt(load(config), words, one_of(output, "table", "json", "csv"))


@leaks_app.command("list")
@guarded
def leaks_list(output: Output = "table", config: ConfigFile = None) -> int:
    """The newest reports."""
    from pipeline.asking.investigating import print_leaks

    return listed(output, False, lambda plain: print_leaks(load(config), "json" if plain else "table"))


@leaks_app.command("show")
@guarded
def leaks_show(
    leak_id: Annotated[str, typer.Argument(help="A leak's id, or a beginning that only one has.")],
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    config: ConfigFile = None,
) -> int:
    """Has a stranger used the key since, and what did he touch?"""
    from pipeline.asking.investigating import print_leak

    return print_leak(load(config), leak_id, output)


@leaks_app.command("report")
@guarded
def leaks_report(
    reason: Annotated[str, typer.Option(help="How it is known: the next one on call will ask.")],
    key_id: Annotated[str, typer.Option(help="The key's public id.")] = "",
    digest: Annotated[str, typer.Option("--hash", help="What `keywatch leaks hash` printed.")] = "",
    url: Annotated[str, typer.Option(help="Where the secret can be seen.")] = "",
    config: ConfigFile = None,
) -> int:
    """Report a key as public, to the intake that takes leaks."""
    from pipeline.asking.investigating import report_leak

    return report_leak(load(config), key_id, digest, url, reason)


@leaks_app.command("hash")
@guarded
def leaks_hash(config: ConfigFile = None) -> int:
    """The keyed hash of a secret read from stdin: for the catalogue's secret_hash, and for reports."""
    from pipeline.asking.investigating import print_hash

    return print_hash(load(config))


def register(root: typer.Typer) -> None:
    """Add them to `keywatch`."""
    root.command()(investigate)
    root.command()(hunt)
    root.add_typer(leaks_app, name="leaks")
