"""Commands by which people teach and judge Keywatch: feedback, mute, unmute, mutes, plan, coverage, report, learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.cli.listing import listed
from pipeline.cli.options import (
    AsJson,
    ConfigFile,
    KeyFrom,
    LogFormat,
    Output,
    Shadow,
    Words,
    json_wanted,
    load,
    one_of,
)
from pipeline.errors import ConfigError

Report = Annotated[str, typer.Option("--output", "-o", help="table or json.")]
Key = Annotated[str, typer.Argument(help="A key id.")]
Detector = Annotated[str, typer.Option(help="What rests on this detector alone.")]
Owner = Annotated[str, typer.Option(help="Of all keys of this owner.")]
Reason = Annotated[str, typer.Option(help="Why: the next one on call will ask.")]


@guarded
def feedback(
    incident: Annotated[str, typer.Argument(help="An incident's id, or a beginning that only one has.")],
    verdict: Annotated[str, typer.Argument(help="expected or malicious.")],
    reason: Reason,
    until: Annotated[str, typer.Option(help="With expected: not told again until then (14d, or RFC 3339).")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it; you, by default.")] = "",
    wait: Annotated[float, typer.Option(min=0, max=600, help="Seconds to wait until it is in effect.")] = 20.0,
    config: ConfigFile = None,
    as_json: AsJson = False,
    output: Words = "text",
) -> int:
    """Say what an incident was: `expected` is learned at once, `malicious` never; shows what it changed."""
    from pipeline.control.operate import Word, give_feedback

    word = Word(
        incident=incident, verdict=verdict, reason=reason, until=until, owner=owner, wait_s=wait,
        as_json=json_wanted(as_json, output),
    )  # fmt: skip
    return give_feedback(load(config), word)


@guarded
def mute(
    until: Annotated[str, typer.Option(help="Until when: 12h, 7d, or RFC 3339.")],
    reason: Reason,
    key: Key = "",
    detector: Detector = "",
    owner: Owner = "",
    force: Annotated[bool, typer.Option("--force", help="Also a key or an owner that nobody knows.")] = False,
    config: ConfigFile = None,
) -> int:
    """Don't tell incidents of a key, an owner, or what rests on one detector alone, for a while."""
    from pipeline.control.operate import mute as say_mute

    return say_mute(load(config), (key, detector, owner), until, reason, force)


@guarded
def unmute(key: Key = "", detector: Detector = "", owner: Owner = "", config: ConfigFile = None) -> int:
    """Let a mute of this very scope end now."""
    from pipeline.control.operate import unmute as say_unmute

    return say_unmute(load(config), (key, detector, owner))


@guarded
def mutes(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    config: ConfigFile = None,
    output: Output = "table",
) -> int:
    """Mutes, exceptions and planned events that hold or are to come."""
    from pipeline.control.operate import print_mutes

    return listed(output, False, lambda plain: print_mutes(load(config), everything, _shape(plain)))


@guarded
def plan(
    name: Annotated[str, typer.Argument(help="What is planned, e.g. black-friday.")] = "",
    from_: Annotated[str, typer.Option("--from", help="RFC 3339, or a span from now.")] = "",
    to: Annotated[str, typer.Option("--to", help="RFC 3339, or a span from now.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    owner: Annotated[list[str] | None, typer.Option(help="Of keys of this owner; may be given again.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="Of keys of this role.")] = None,
    environment: Annotated[list[str] | None, typer.Option(help="live or test.")] = None,
    route: Annotated[
        list[str] | None, typer.Option(help="On this route; /v1/orders* is all below it, * is all.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A calendar: TOML ([[planned]]) or CSV.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Let the event of this name end now.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also an owner, role or environment that no key declares.")
    ] = False,
    config: ConfigFile = None,
) -> int:
    """Planned events: listed incidents of volume alone are withheld while one lasts."""
    from pipeline.control import operate, plans

    settings = load(config)
    if file is not None:
        return operate.plan(settings, plans.read_calendar(file), force)
    if not name:
        raise ConfigError("name what is planned, or give a calendar by --file")
    if cancel:
        return operate.cancel(settings, name)
    scope = {"owners": owner, "roles": role, "environments": environment, "routes": route}
    planned = plans.planned_of(name, from_, to, reason, {k: tuple(v or ()) for k, v in scope.items()})
    return operate.plan(settings, [planned], force)


@guarded
def coverage(config: ConfigFile = None, output: Output = "table") -> int:
    """Keys that are not really watched, and why, the critical ones first."""
    from pipeline.asking.coverage import print_coverage

    return listed(output, False, lambda plain: print_coverage(load(config), _shape(plain)), rows="unwatched")


def _shape(plain: bool) -> str:
    return "json" if plain else "table"


@guarded
def report(
    last: Annotated[str, typer.Option(help="The span up to the newest use: 7d, 24h.")] = "7d",
    config: ConfigFile = None,
    shadow: Shadow = "",
    output: Report = "table",
) -> int:
    """Incidents against budget, precision by detector, unreviewed adoptions, expiring exceptions, near misses."""
    from pipeline.asking.report import print_report

    return print_report(load(config, shadow), last, one_of(output, "table", "json"))


@guarded
def learn(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders of old logs, gzip too.")] = None,
    format: LogFormat = "native",
    key_from: KeyFrom = "",
    keys: Annotated[Path | None, typer.Option(help="What is declared of keys, instead of the keys topic.")] = None,
    topic: Annotated[str, typer.Option(help="A range of this topic instead of files.")] = "",
    from_: Annotated[str, typer.Option("--from", help="RFC 3339, with --topic.")] = "",
    to: Annotated[str, typer.Option("--to", help="RFC 3339, with --topic.")] = "",
    at: Annotated[
        str,
        typer.Option(
            help="Where workers go on in the requests topic: start or (today's) end; where the history is of that "
            "topic, always where it ended."
        ),
    ] = "start",
    config: ConfigFile = None,
) -> int:
    """Prime the workers' state from history, before their first start; tells no incident of it.

    Keys and what they share are primed. Sources (spray), silence, outbreaks and lifecycle begin cold.
    """
    from pipeline.runners.learn import LearnOptions, main

    return main(
        load(config),
        LearnOptions(
            paths=tuple(paths or ()),
            format=format,
            key_from=key_from,
            keys=keys,
            topic=topic,
            from_=from_,
            to=to,
            at=at,
        ),
    )


def register(app: typer.Typer) -> None:
    """Add them to `keywatch`."""
    for command in (feedback, mute, unmute, mutes, plan, coverage, report, learn):
        app.command()(command)
