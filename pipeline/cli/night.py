"""`keywatch cases`, `keywatch drill`; and `keywatch respond endpoints`, `dead-letters`, `promotion`, `promote`, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.listing import listed
from pipeline.cli.options import AsJson, ConfigFile, Output, Words, json_wanted, load
from pipeline.control.people import user

cases_app = typer.Typer(help="Incidents that belong together: see, take, put off, close.")
drill_app = typer.Typer(
    help="Abuse a decoy of yours through the real gateway, and see that it is seen.", no_args_is_help=True
)

CaseId = Annotated[str, typer.Argument(help="A case's id, or a beginning that only one has.")]
Person = Annotated[str, typer.Option("--as", help="Who you are; the system's user by default.")]
Why = Annotated[str, typer.Option("--reason", help="For the next one on call.")]


def _desk() -> Any:
    from pipeline.respond.night import desk as night_desk

    return night_desk


@cases_app.callback(invoke_without_command=True)
def cases(
    context: typer.Context,
    config: ConfigFile = None,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones, too.")] = False,
    as_json: AsJson = False,
    output: Output = "table",
) -> None:
    """Open cases; or a word on one."""
    if context.invoked_subcommand is None:
        list_cases(config, everything, as_json, output)


@cases_app.command("list")
@guarded
def list_cases(
    config: ConfigFile = None,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones, too.")] = False,
    as_json: AsJson = False,
    output: Output = "table",
) -> int:
    """Open cases, who waits longest first."""
    return listed(output, as_json, lambda plain: _desk().list_cases(load(config), everything, plain))


@cases_app.command()
@guarded
def ack(case: CaseId, person: Person = "", reason: Why = "", config: ConfigFile = None) -> int:
    """You take it: nobody else is called for it, until it gets graver or grows."""
    return int(_desk().say_of_case(load(config), case, "ack", person or user(), reason=reason))


@cases_app.command()
@guarded
def assign(
    case: CaseId,
    to: Annotated[str, typer.Option(help="Who takes it.")],
    person: Person = "",
    reason: Why = "",
    config: ConfigFile = None,
) -> int:
    """Somebody else takes it."""
    return int(_desk().say_of_case(load(config), case, "assign", person or user(), to=to, reason=reason))


@cases_app.command()
@guarded
def snooze(
    case: CaseId,
    until: Annotated[str, typer.Option("--until", "--for", help="30m, 2h, 1d, or RFC 3339; at most 3 days.")],
    person: Person = "",
    reason: Why = "",
    config: ConfigFile = None,
) -> int:
    """Nobody is called for it until then, unless it gets graver or grows."""
    until_us = _desk().snoozed_until_us(until)
    return int(_desk().say_of_case(load(config), case, "snooze", person or user(), until_us=until_us, reason=reason))


@cases_app.command()
@guarded
def close(case: CaseId, person: Person = "", reason: Why = "", config: ConfigFile = None) -> int:
    """It is over. Say also what it was: keywatch feedback."""
    return int(_desk().say_of_case(load(config), case, "close", person or user(), reason=reason))


@drill_app.command("run")
@guarded
def drill_run(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has passed or failed.")] = True,
    person: Person = "",
    config: ConfigFile = None,
) -> int:
    """Abuse the decoy of [respond.drill] through the gateway; exit code 1 if nobody notices in time."""
    return int(_desk().run_drill(load(config), person or user(), wait))


@drill_app.command("status")
@guarded
def drill_status(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """The last drills; exit code 1 if the newest failed."""
    return listed(output, as_json, lambda plain: _desk().drill_status(load(config), plain))


@guarded
def endpoints(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """Where is told what: what waits, what is dead, who is disabled and why."""
    return listed(output, as_json, lambda plain: _desk().list_endpoints(load(config), plain))


@guarded
def enable(
    name: Annotated[str, typer.Argument(help="As `respond endpoints` lists it.")],
    person: Person = "",
    config: ConfigFile = None,
) -> int:
    """Let a disabled endpoint get messages again."""
    return int(_desk().enable(load(config), name, person or user()))


@guarded
def dead_letters(
    message: Annotated[str, typer.Argument(help="A message's id, or its beginning; nothing for all.")] = "",
    endpoint: Annotated[str, typer.Option(help="Of this endpoint only.")] = "",
    resend: Annotated[bool, typer.Option("--resend", help="Try them again, from the schedule's start.")] = False,
    person: Person = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
    output: Output = "table",
) -> int:
    """Messages that were given up, kept for 7 days; with --resend they are tried again."""
    settings, who = load(config), person or user()
    return listed(output, as_json, lambda plain: _desk().dead_letters(settings, endpoint, message, resend, who, plain))


@guarded
def leftovers(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """Revoked keys that their gateway only disabled: to be deleted there, by hand, after 30 days."""
    from pipeline.respond.rotation import desk as leftover_desk

    return listed(output, as_json, lambda plain: leftover_desk.list_leftovers(load(config), plain))


@guarded
def deleted(
    key: Annotated[str, typer.Argument(help="As `respond leftovers` lists it.")],
    person: Person = "",
    reason: Why = "",
    config: ConfigFile = None,
) -> int:
    """You have deleted a revoked key at its gateway: nobody is reminded of it any more."""
    from pipeline.respond.rotation import desk as leftover_desk

    return leftover_desk.deleted(load(config), key, person or user(), reason)


@guarded
def promotion(config: ConfigFile = None, as_json: AsJson = False, output: Words = "text") -> int:
    """How far the policy has come from simulate to enforce; exit code 1 while something is missing."""
    from pipeline.respond.promotion import progress as way

    return way.show(load(config), json_wanted(as_json, output))


@guarded
def promote(
    to: Annotated[str, typer.Option(help="fence or suspend; back to simulate or fence; revoke by --override only.")],
    reason: Why = "",
    override: Annotated[bool, typer.Option("--override", help="Though it is not earned: say why; signed.")] = False,
    person: Person = "",
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Your approver's key; for a step up.")] = None,
    config: ConfigFile = None,
) -> int:
    """Let acts happen by themselves up to this stage, if its days and reviewed acts are there; or go back."""
    from pipeline.respond.promotion import steps as promoting

    return promoting.promote(load(config), person or user(), to, reason, override, key_file)


def register(app: typer.Typer, respond_app: typer.Typer) -> None:
    """Add them to `keywatch` and to `keywatch respond`."""
    app.add_typer(cases_app, name="cases")
    app.add_typer(drill_app, name="drill")
    respond_app.command()(endpoints)
    respond_app.command()(enable)
    respond_app.command("dead-letters")(dead_letters)
    respond_app.command()(leftovers)
    respond_app.command()(deleted)
    respond_app.command()(promotion)
    respond_app.command()(promote)
