"""The command `keywatch`. Imports are made inside of the commands, so that `--help` and completion are quick.

Exit codes: 0 done; 1 something outside failed (broker, ClickHouse, disk) or a check found a fault; 2 wrong use or
configuration; 130 interrupted. What a user can run into is one line on stderr, without a traceback.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import adapters as cli_adapters
from pipeline.cli import console as cli_console
from pipeline.cli import investigate as cli_investigate
from pipeline.cli import keys as cli_keys
from pipeline.cli import night as cli_night
from pipeline.cli import operate as cli_operate
from pipeline.cli import privacy as cli_privacy
from pipeline.cli import respond as cli_respond
from pipeline.cli import traffic as cli_traffic
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
    formats,
    json_wanted,
    load,
    one_of,
)
from pipeline.errors import ConfigError
from pipeline.evaluation import commands as evaluation

app = typer.Typer(
    name="keywatch", help="Sees a leaked API key in use within seconds, says why, takes it out of use.",
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
config_app = typer.Typer(help="Show, check and describe the configuration.", no_args_is_help=True)
geo_app = typer.Typer(help="The geo databases.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(cli_adapters.app, name="adapters")
app.add_typer(geo_app, name="geo")
state_app = typer.Typer(help="Backup, restore and repartition of what the workers know.", no_args_is_help=True)
app.add_typer(state_app, name="state")
app.add_typer(evaluation.app, name="evaluate")
cli_operate.register(app)
cli_console.register(app)
cli_respond.register(app)
cli_night.register(app, cli_respond.respond_app)
cli_keys.register(app)
cli_investigate.register(app)
cli_privacy.register(app)
cli_traffic.register(app)


SERVICES = frozenset({"worker", "respond", "intake", "plugin", "console", "traffic"})
"""Commands that run on and log what they do; the others say on stdout what they found, and log errors only."""


@app.callback()
def options(
    context: typer.Context,
    log_level: Annotated[str, typer.Option(envvar="KEYWATCH_LOG_LEVEL", help="debug, info, warning, error.")] = "",
    log_json: Annotated[bool, typer.Option(envvar="KEYWATCH_LOG_JSON", help="Log lines as JSON.")] = False,
) -> None:
    """Sees a leaked API key in use within seconds, says why, takes it out of use."""
    from pipeline import log

    if log_level.upper() not in ("", "DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter("the log level is debug, info, warning or error")
    serves = context.invoked_subcommand in SERVICES
    log.set_up(log_level or ("info" if serves else "error"), as_json=log_json)
    if not serves and not log_level:
        for name in ("aiokafka", "urllib3.connectionpool", "clickhouse_connect"):  # said in our one line
            logging.getLogger(name).setLevel(logging.CRITICAL)


@app.command()
@guarded
def worker(
    config: ConfigFile = None,
    runner: Annotated[str, typer.Option(help="faust, or plain (aiokafka alone).")] = "faust",
    shadow: Annotated[str, typer.Option(help="Beside production, under this name: nothing it finds is acted on.")] = "",
    topology: Annotated[
        str,
        typer.Option(help="keys (the requests), sources (one source, many keys), lifecycle (what is done to keys)."),
    ] = "keys",
) -> int:
    """Judge every event of the requests topic, until stopped; or what another topology reads."""
    from pipeline.runners import topology as topologies

    if runner not in ("faust", "plain"):
        raise ConfigError(f"unknown runner '{runner}'; there are faust and plain")
    topologies.check(topology)
    if shadow and topology != "keys":
        raise ConfigError("--shadow goes with the topology keys: only its detectors can be tried beside production")
    settings = topologies.settings_of(load(config, shadow), topology)
    parts = topologies.parts_of(topology)
    if runner == "faust":
        from pipeline.runners import worker as faust_worker

        return faust_worker.main(settings, parts)
    from pipeline.runners import plain

    return plain.main(settings, parts)


@app.command()
@guarded
def intake(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders, with --from files.")] = None,
    config: ConfigFile = None,
    source: Annotated[str, typer.Option("--from", help="topic (the raw topic), http, or files.")] = "",
    format: Annotated[
        str, typer.Option("--format", help="The gateway's format, instead of intake.format.", autocompletion=formats)
    ] = "",
) -> None:
    """Take a gateway's log in: decode, strip secrets, key by key id, write to the requests topic."""
    import asyncio

    import msgspec

    from pipeline.intake.run import run

    settings = load(config)
    if format:
        settings = msgspec.structs.replace(settings, intake=msgspec.structs.replace(settings.intake, format=format))
    chosen = source or ("files" if paths else "topic")
    asyncio.run(run(settings, {"topic": "kafka"}.get(chosen, chosen), tuple(paths or ())))


@app.command()
@guarded
def plugin(config: ConfigFile = None) -> int:
    """A River anomaly model over each key's minutes in ClickHouse, until stopped: findings, no incidents by default."""
    from pipeline.plugin import follow

    return follow.main(load(config))


@app.command()
@guarded
def replay(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders of logs, gzip too.")] = None,
    format: LogFormat = "native",
    keys: Annotated[Path | None, typer.Option(help="What is declared of keys: JSON lines or CSV.")] = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder for incidents, findings and windows as JSON lines.")] = None,
    as_json: AsJson = False,
    output: Words = "text",
    key_from: KeyFrom = "",
    partitions: Annotated[int, typer.Option(help="As many as the topic has.")] = 1,
    partitioner: Annotated[str, typer.Option(help="murmur2 (Java) or crc32 (librdkafka).")] = "murmur2",
    topic: Annotated[str, typer.Option(help="Replay a range of this topic instead of files.")] = "",
    from_: Annotated[str, typer.Option("--from", help="RFC 3339, with --topic.")] = "",
    to: Annotated[str, typer.Option("--to", help="RFC 3339, with --topic.")] = "",
    against: Annotated[
        Path | None, typer.Option(help="Another configuration: what comes, what goes, who is hit.")
    ] = None,
    controls: Annotated[
        str,
        typer.Option(help="A file of what people said (JSON lines); with --topic also: adopted, as the worker did."),
    ] = "",
) -> int:
    """Run the very same judgement over old logs, with all effects off."""
    from pipeline.runners.replay import ReplayOptions, main

    return main(
        ReplayOptions(
            paths=tuple(paths or ()), format=format, keys=keys, config=config, out=out,
            json=json_wanted(as_json, output), key_from=key_from, partitions=partitions, partitioner=partitioner,
            topic=topic, from_=from_, to=to, against=against, controls=controls,
        )
    )  # fmt: skip


@app.command()
@guarded
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards and print the addresses.")] = False,
    broker: Annotated[str, typer.Option(help="HOST:PORT of a Kafka instead of the embedded broker.")] = "",
) -> int:
    """The whole product, small, on this machine: attacks, incidents, a revoked key."""
    from pipeline.runners.demo import main

    return main(keep, broker or None)


@app.command()
@guarded
def bench(
    as_json: AsJson = False,
    output: Words = "text",
    broker: Annotated[str, typer.Option(help="HOST:PORT[,...] of a Kafka instead of the embedded broker.")] = "",
    events: Annotated[int, typer.Option(min=10_000, help="Events of each repetition.")] = 600_000,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 3,
    only: Annotated[
        str, typer.Option(help="Parts, by comma: rates, peers, scaling, latency, steps. All by default.")
    ] = "",
    here: Annotated[
        bool, typer.Option("--clickhouse-here", help="ClickHouse takes of these processors in scaling and latency too.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Where the worker's time goes, by thread; only that.")
    ] = False,
) -> int | None:
    """Events per second beside the peers', event to incident, nanoseconds per step: measured here and now."""
    from pipeline.runners.bench import main

    return main(json_wanted(as_json, output), broker, events, repeats, only, profile, here)


@app.command()
@guarded
def migrate(
    config: ConfigFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be applied.")] = False,
    shadow: Shadow = "",
) -> None:
    """Bring ClickHouse's tables up to date."""
    from pipeline.migrate import migrate as apply

    names = apply(load(config, shadow).clickhouse, dry_run)
    for name in names:
        typer.echo(f"{'would apply' if dry_run else 'applied'} {name}")
    if not names:
        typer.echo("nothing to do")


@app.command()
@guarded
def incidents(
    config: ConfigFile = None,
    key: Annotated[str, typer.Option(help="Of this key only.")] = "",
    shadow: Shadow = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most that are listed.")] = 50,
    as_json: AsJson = False,
    output: Output = "table",
) -> int | None:
    """The newest incidents."""
    from pipeline.asking.answers import print_incidents

    return print_incidents(load(config, shadow), key, limit, as_json, one_of(output, "table", "json", "csv"))


@app.command()
@guarded
def explain(
    incident_id: Annotated[str, typer.Argument(help="An incident's id, or a beginning that only one has.")],
    config: ConfigFile = None,
    shadow: Shadow = "",
    as_json: AsJson = False,
    output: Words = "text",
) -> int | None:
    """One incident: the evidence in words and numbers, sample requests, what is normal for the key."""
    from pipeline.asking.answers import print_explanation

    return print_explanation(load(config, shadow), incident_id, json_wanted(as_json, output))


@app.command()
@guarded
def doctor(
    config: ConfigFile = None,
    sample: Annotated[Path | None, typer.Option(help="Name the format of this log, and what it leaves blind.")] = None,
    output: Output = "table",
) -> int:
    """Check configuration, broker, topics, ClickHouse, geo databases and webhooks; say what to do."""
    from pipeline import doctor as checks
    from pipeline.cli.listing import listed

    return listed(output, False, lambda plain: checks.main(config, sample, plain))


@app.command("warm-up", hidden=True)
@guarded
def warm_up() -> None:
    """Compile what runs per event into numba's cache, so that later starts are quick (`make install`, images)."""
    from pipeline.warm import warm_up as compile_all

    compile_all()


@config_app.command("show")
@guarded
def config_show(
    config: ConfigFile = None,
    redacted: Annotated[bool, typer.Option("--redacted", help="As always: secrets are never shown.")] = True,
) -> None:
    """The whole configuration as it counts, defaults included; secrets as stars."""
    from pipeline.config.file import show

    typer.echo(show(load(config)), nl=False)


@config_app.command("check")
@guarded
def config_check(config: ConfigFile = None) -> None:
    """Whether the configuration is right, the detectors' tables too."""
    from pipeline.doctor import check_detectors, check_format

    settings = load(config)
    check_detectors(settings)
    check_format(settings)
    typer.echo("the configuration is right")


@config_app.command("schema")
@guarded
def config_schema() -> None:
    """JSON Schema of the configuration file."""
    import json

    from pipeline.config.file import schema
    from pipeline.reference.settings import described

    typer.echo(json.dumps(described(schema()), indent=2))


@state_app.command("export")
@guarded
def state_export(
    path: Annotated[Path, typer.Argument(help="File to write, or a folder (keywatch.state in it).")],
    config: ConfigFile = None,
    undrained: Annotated[bool, typer.Option("--undrained", help="A backup for the same partitions only.")] = False,
) -> int:
    """Write all that the stopped workers know, key by key, into one file."""
    from pipeline.runners.export_state import main

    return main(load(config), path, undrained)


@state_app.command("import")
@guarded
def state_import(
    path: Annotated[Path, typer.Argument(help="File of `state export`, or its folder.")],
    partitions: Annotated[int, typer.Option(min=1, help="As many as the requests topic has now.")],
    config: ConfigFile = None,
    at: Annotated[str, typer.Option(help="In a topic made anew that has events: start or end.")] = "",
    older: Annotated[bool, typer.Option("--older", help="Replace state that includes more than the file.")] = False,
    strays: Annotated[bool, typer.Option("--reject-strays", help="Go on with events on a wrong partition.")] = False,
) -> int:
    """Give the workers the state of a file, spread over the topic's partitions. The old state is replaced."""
    from pipeline.runners.import_state import Choices, main

    if at not in ("", "start", "end"):
        raise ConfigError(f"unknown --at '{at}'; there are start and end")
    return main(load(config), path, Choices(partitions, at, older, strays))


@geo_app.command("info")
@guarded
def geo_info(
    address: Annotated[str, typer.Argument(help="Also look this address up.")] = "",
    config: ConfigFile = None,
    output: Output = "table",
) -> int:
    """The databases in use, their dates and licences."""
    from pipeline.asking.geo import print_geo
    from pipeline.geo.provider import open_geo

    geo = open_geo(load(config).geo)
    return listed(output, False, lambda plain: print_geo(geo, address, plain), rows="databases")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
