"""`keywatch respond`, the process, and what people say to it; `keywatch policy`, what it goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.listing import listed
from pipeline.cli.options import AsJson, ConfigFile, Output, load
from pipeline.control.people import user
from pipeline.errors import ConfigError

respond_app = typer.Typer(
    help="The responder: carries incidents out until stopped. With a command: what people ask of it, or say to it."
)
policy_app = typer.Typer(help="Check the responder's policy, and try it on history.", no_args_is_help=True)

Person = Annotated[str, typer.Option("--as", help="Who you are; the system's user by default.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="The approver's key; or KEYWATCH_APPROVER_KEY.")]
Reason = Annotated[str, typer.Option(help="Why: the next one on call will ask.")]
Cluster = Annotated[str, typer.Argument(help="breaker (all that waits), or a label: asn:64500, client:..., owner:...")]


def _commands() -> Any:
    from pipeline.respond import commands

    return commands


def _policy() -> Any:
    from pipeline.respond.policy import commands as policy_commands

    return policy_commands


@respond_app.callback(invoke_without_command=True)
def respond(context: typer.Context, config: ConfigFile = None) -> None:
    """Carry incidents out: guard, act, record, until stopped; or say something to those that do."""
    if context.invoked_subcommand is None:
        _serve(config)
    elif not context.find_root().params.get("log_level"):
        from pipeline import log

        log.set_up("error", as_json=bool(context.find_root().params.get("log_json")))


@guarded
def _serve(config: Path | None) -> int:
    from pipeline.respond import responder

    return responder.main(load(config))


@respond_app.command()
@guarded
def act(
    incident: Annotated[str, typer.Argument(help="An incident's id, or a beginning that only one has.")],
    rung: Annotated[str, typer.Option(help="fence or suspend.")],
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would be done.")] = False,
    person: Person = "",
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Act on one incident's key by your word: what the message proposes; `undo` with the same id takes it back."""
    from pipeline.respond import by_hand

    settings, who = load(config), person or user()
    path = None if preview else _commands().key_file_of(settings, who, key_file)
    return int(by_hand.act(settings, who, incident, rung, path))  # type: ignore[arg-type]  # it looks itself


@respond_app.command()
@guarded
def undo(
    response: Annotated[str, typer.Argument(help="A response's id (or its beginning), or an incident's.")],
    reason: Reason,
    person: Person = "",
    wait: Annotated[float, typer.Option(min=0, max=900, help="Seconds to wait for the target's answer.")] = 20.0,
    force: Annotated[bool, typer.Option("--force", help="A rotation's, though its new key is in use; signed.")] = False,
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Take an act back: restores exactly what was. Of a rotation not while its new key, which it deletes, is in use."""
    return int(_commands().undo(load(config), person or user(), response, reason, wait, force, key_file))


@respond_app.command()
@guarded
def extend(
    key: Annotated[str, typer.Argument(help="A rotation's old or new key, or its response id.")],
    until: Annotated[str, typer.Option(help="When the old key ends: 2d from now, or RFC 3339.")],
    reason: Reason,
    person: Person = "",
    config: ConfigFile = None,
) -> int:
    """Put the end of a rotation off: its old key lives until then, or until its traffic has moved."""
    return int(_commands().extend(load(config), person or user(), key, until, reason))


@respond_app.command()
@guarded
def holds(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """What stands and can be undone: which key, which rung, until when."""
    return listed(output, as_json, lambda plain: _commands().holds(load(config), user(), plain))


@respond_app.command()
@guarded
def pending(config: ConfigFile = None, as_json: AsJson = False, output: Output = "table") -> int:
    """What waits for people's approval."""
    return listed(output, as_json, lambda plain: _commands().pending(load(config), user(), plain))


@respond_app.command()
@guarded
def approve(
    ticket: Annotated[str, typer.Argument(help="As `respond pending` lists it, or its beginning.")],
    person: Person = "",
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Sign what waits: an act, a bulk, a raise, a step up, a forced undo."""
    return int(_commands().sign(load(config), person or user(), ticket, True, key_file, ""))


@respond_app.command()
@guarded
def refuse(
    ticket: Annotated[str, typer.Argument(help="As `respond pending` lists it, or its beginning.")],
    reason: Reason,
    person: Person = "",
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Decline what waits: this incident doesn't lead to an act any more."""
    return int(_commands().sign(load(config), person or user(), ticket, False, key_file, reason))


@respond_app.command()
@guarded
def queue(
    cluster: Cluster = "breaker", config: ConfigFile = None, as_json: AsJson = False, output: Output = "table"
) -> int:
    """Keys that caps, the breaker or a stage not earned held back within a day, the strongest evidence first."""
    return listed(output, as_json, lambda plain: _commands().queue(load(config), user(), cluster, plain))


@respond_app.command()
@guarded
def bulk(
    cluster: Cluster,
    rung: Annotated[str, typer.Option(help="fence or suspend.")],
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would be done.")] = False,
    person: Person = "",
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Act on all queued keys of a cluster, by one approval (yours), or more where the policy says so."""
    return int(_commands().bulk(load(config), person or user(), cluster, rung, preview, key_file))


@respond_app.command("raise")
@guarded
def raise_caps(
    until: Annotated[str, typer.Option(help="At most a day off: 2h, or RFC 3339.")],
    reason: Reason,
    cap: Annotated[str, typer.Option(help="usual, fence, flag or proof.")] = "usual",
    max_per_hour: Annotated[int | None, typer.Option(min=0, help="Different keys.")] = None,
    max_per_day: Annotated[int | None, typer.Option(min=0, help="Different keys.")] = None,
    max_share_of_active: Annotated[float | None, typer.Option(min=0, max=1, help="Of active keys.")] = None,
    person: Person = "",
    key_file: KeyFile = None,
    config: ConfigFile = None,
) -> int:
    """Ask for wider caps for a while: a second approver has to sign, too."""
    settings, commands = load(config), _commands()
    caps = commands.caps_of(settings, cap, max_per_hour, max_per_day, max_share_of_active)
    return int(commands.raise_caps(settings, person or user(), cap, caps, until, reason, key_file))


@respond_app.command()
@guarded
def breaker(
    action: Annotated[str, typer.Argument(help="show or close.")] = "show",
    reason: Annotated[str, typer.Option(help="Why it is safe to go on.")] = "",
    person: Person = "",
    config: ConfigFile = None,
    output: Output = "table",
) -> int:
    """Whether automatic acts have stopped since many owners' keys tripped at once; or let them go on."""
    if action not in ("show", "close") or (action == "close" and not reason):
        raise ConfigError("breaker show, or breaker close --reason TEXT")
    if action == "close":
        return int(_commands().close_breaker(load(config), person or user(), reason))
    return listed(output, False, lambda plain: _commands().breaker(load(config), person or user(), plain))


@respond_app.command()
@guarded
def stop(reason: Reason, person: Person = "", config: ConfigFile = None) -> int:
    """The kill switch: nothing acts any more, in any responder; undos and timed ends go on."""
    return int(_commands().switch(load(config), person or user(), True, reason))


@respond_app.command()
@guarded
def go(reason: Reason, person: Person = "", config: ConfigFile = None) -> int:
    """Take the kill switch on the topic back."""
    return int(_commands().switch(load(config), person or user(), False, reason))


@respond_app.command()
@guarded
def simulate(
    reason: Reason,
    off: Annotated[bool, typer.Option("--off", help="Take the switch back.")] = False,
    person: Person = "",
    config: ConfigFile = None,
) -> int:
    """The simulate switch: what would be done is decided and recorded, nothing is carried out; undos go on."""
    return int(_commands().simulate(load(config), person or user(), not off, reason))


@respond_app.command()
@guarded
def approver(
    name: Annotated[str, typer.Argument(help="As the configuration will call this person.")],
    key_file: Annotated[Path, typer.Option("--key-file", help="Where the private half goes.")] = Path("approver.key"),
) -> int:
    """Make a person's key pair: the private half into a file, the public one for the configuration."""
    return int(_commands().make_approver(name, key_file))


@policy_app.command("check")
@guarded
def policy_check(config: ConfigFile = None, output: Output = "table") -> int:
    """Name what can't be meant, what can never match, and what is unsafe."""
    return listed(output, False, lambda plain: _policy().check_policy(load(config), plain))


@policy_app.command("try")
@guarded
def policy_try(
    since: Annotated[str, typer.Option("--from", help="RFC 3339, or a span back (14d): since when.")],
    stage: Annotated[str, typer.Option(help="As if so much had been earned: simulate, fence, suspend.")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
    output: Output = "table",
) -> int:
    """What would have been done to which keys, against the caps, with the incidents of ClickHouse."""
    if stage not in ("", "simulate", "fence", "suspend"):
        raise ConfigError(f"unknown --stage '{stage}'; there are simulate, fence, suspend; without it all is earned")
    return listed(output, as_json, lambda plain: _policy().try_policy(load(config), since, stage or "revoke", plain))


def register(app: typer.Typer) -> None:
    """Add them to `keywatch`."""
    app.add_typer(respond_app, name="respond")
    app.add_typer(policy_app, name="policy")
