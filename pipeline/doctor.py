"""`keywatch doctor`: is everything there that a deployment needs, and if not, what to do about it.

Each check is a function that returns findings and never raises for a fault that it looks for. Nothing is written. Each
runs in a thread of its own that nobody waits for beyond `CHECK_TIMEOUT_S`: a client that is being closed and a thread
that waits for a silent server can't be interrupted (asyncio itself would wait 5 minutes for it at the end).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from pipeline.config.file import load
from pipeline.config.tree import Config, Endpoint, Kafka
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.finding import Finding, State
from pipeline.listening import beyond

COLOURS: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "fail": "red"}
OLD_DAYS: Final = 365
"""Networks change hands: of a year-old database a few percent of the addresses are wrong."""
STALE_DAYS: Final = 60
"""Of a database of your own: makers renew theirs monthly at least, so what fetches it has stopped (KeywatchGeoOld)."""
CHECK_TIMEOUT_S: Final = 20.0
CONNECT_S: Final = 5.0
NEEDED: Final = (
    "pipeline.sinks.topics", "pipeline.sinks.tls", "pipeline.migrate", "pipeline.refreshes", "pipeline.geo.provider",
    "pipeline.respond.delivery.address", "pipeline.respond.adapters.report", "pipeline.intake.http",
)  # fmt: skip
"""What the checks import, before their threads start: two that import one another's modules could see half of one."""


def main(config_file: Path | None, sample: Path | None = None, as_json: bool = False) -> int:
    """Exit code: 0 where nothing failed (warnings may stand), 1 where something did, 2 for a wrong configuration."""
    if sample is not None:
        from pipeline.intake.run import options_of
        from pipeline.intake.sample import check_sample

        return _print(check_sample(sample, options_of(load(config_file))), as_json)
    config = load(config_file)
    check_detectors(config)
    check_format(config)
    findings = [Finding("ok", "config", f"{config_file or 'defaults and variables'}"), *check(config)]
    return _print(findings, as_json)


def _print(findings: list[Finding], as_json: bool) -> int:
    if as_json:
        typer.echo(msgspec.json.encode(findings).decode())
    for finding in findings if not as_json else ():
        advice = f"\n      {'':12} -> {finding.advice}" if finding.advice else ""
        state = typer.style(f"{finding.state:5}", fg=COLOURS[finding.state])
        typer.echo(f"{state} {finding.about:12} {finding.text}{advice}")
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def check(config: Config) -> list[Finding]:
    """All checks of the surroundings, at once; within `CHECK_TIMEOUT_S`."""
    checks: dict[str, Check] = {
        "kafka": check_kafka,
        "clickhouse": check_clickhouse,
        "geo": check_geo,
        "webhooks": check_webhooks,
        "adapters": check_adapters,
        "ports": check_ports,
    }
    for module in NEEDED:
        importlib.import_module(module)
    answers: queue.SimpleQueue[tuple[str, list[Finding]]] = queue.SimpleQueue()
    for name, run in checks.items():
        threading.Thread(target=_answer, args=(name, run, config, answers), name=name, daemon=True).start()
    found: dict[str, list[Finding]] = {}
    until_s = time.monotonic() + CHECK_TIMEOUT_S
    with contextlib.suppress(queue.Empty):
        while len(found) < len(checks):
            name, findings = answers.get(timeout=max(0.0, until_s - time.monotonic()))
            found[name] = findings
    return [finding for name in checks for finding in found.get(name, [_silent(name)])]


Check = Callable[[Config], Coroutine[Any, Any, list[Finding]]]


def _answer(about: str, run: Check, config: Config, answers: queue.SimpleQueue[tuple[str, list[Finding]]]) -> None:
    advice = f"check the section [{about}] of the configuration"
    try:
        findings = asyncio.run(run(config))
    except (ConfigError, Fatal, Retry) as error:
        findings = [Finding("fail", about, " ".join(str(error).split()), advice)]
    except Exception as error:  # noqa: BLE001  (a check that breaks is a finding, not five other checks unheard)
        findings = [Finding("fail", about, f"the check itself failed: {error!r}", advice)]
    answers.put((about, findings))


def _silent(about: str) -> Finding:
    return Finding("fail", about, f"no answer within {CHECK_TIMEOUT_S:.0f} s", "is a firewall between?")


def check_detectors(config: Config) -> None:
    """Raises ConfigError for a detector's table or setting that does not exist, or a value out of place."""
    from detectors import DETECTORS
    from pipeline.config import detectors as detector_tables

    known = {detector.name: detector for detector in DETECTORS}
    detector_tables.simulated(config.detectors)
    for name, table in detector_tables.knobs(config.detectors).items():
        if name not in known:
            raise ConfigError(f"detectors.{name}: there is no such detector; there are {', '.join(known)}")
        try:
            msgspec.convert(
                {**msgspec.structs.asdict(known[name].config), **_known_fields(name, table, known[name])},
                type(known[name].config),
            )
        except msgspec.ValidationError as error:
            raise ConfigError(f"detectors.{name}: {str(error).replace('`', '')}") from error


def check_format(config: Config) -> None:
    """Raises ConfigError for an intake.format that does not exist."""
    from pipeline.formats import FORMATS
    from pipeline.intake.run import KEY_EVENTS

    if config.intake.format not in (*FORMATS, *KEY_EVENTS):
        known = ", ".join(sorted([*FORMATS, *KEY_EVENTS]))
        raise ConfigError(f"intake.format '{config.intake.format}' is unknown; known are {known}")


def _known_fields(name: str, table: dict[str, Any], detector: Any) -> dict[str, Any]:
    fields = detector.config.__struct_fields__
    for field in table:
        if field not in fields:
            raise ConfigError(f"detectors.{name}.{field}: unknown setting; there are {', '.join(fields)}")
    return table


async def check_kafka(config: Config) -> list[Finding]:
    """Broker, topics, partition counts. Raises Fatal where no broker answers."""
    from pipeline.sinks.topics import partitions_of, topic_specs

    topics = config.topics
    names = [spec.name for spec in topic_specs(config)] + [topics.pages]
    states = {
        topics.pages: topics.requests,
        topics.sources_pages: topics.sightings,
        topics.lifecycle_pages: topics.key_events,
    }
    existing = await partitions_of(config.kafka, [*names, *states])
    findings = [Finding("ok", "kafka", f"{config.kafka.brokers} answers ({config.kafka.security})")]
    findings += check_certificate(config.kafka)
    findings += [_missing(config, name) for name in names if name not in existing]
    findings += [Finding("ok", "topic", f"{name}: {count} partitions") for name, count in sorted(existing.items())]
    for pages, read in states.items():
        has, needs = existing.get(pages), existing.get(read)
        if has and needs and has != needs:
            advice = f"make {pages} anew with {needs} partitions; state is then learned again"
            findings.append(Finding("fail", "topic", f"{pages} has {has} partitions, {read} has {needs}", advice))
    orders = (topics.decisions, "the caps on acts one count"), (topics.control, "what was said one order")
    for name, what in orders:
        if existing.get(name, 1) != 1:
            advice = f"one partition is what makes {what}; make it anew"
            findings.append(Finding("fail", "topic", f"{name} has more than one partition", advice))
    return findings + await _check_settings(config, sorted(existing))


def check_certificate(kafka: Kafka) -> list[Finding]:
    """How long our client certificate lasts, if we have one. Raises ConfigError for one that brokers would refuse."""
    from pipeline.sinks.tls import LITTLE, certificate

    if (ours := certificate(kafka)) is None:
        return []
    now = datetime.now(UTC)
    hours = (ours.until - now) / timedelta(hours=1)
    lasts = f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
    text = f"the certificate of {ours.subject} lasts until {ours.until:%Y-%m-%d %H:%M} UTC ({lasts})"
    late = ours.left(now) < LITTLE
    advice = f"has whoever renews {kafka.cert_file} stopped? New files are used without a restart" if late else ""
    return [Finding("warn" if late else "ok", "kafka", text, advice)]


async def _check_settings(config: Config, existing: list[str]) -> list[Finding]:
    """Whether the broker would delete what must stay. Raises Fatal."""
    from pipeline.sinks.topic_settings import faults, topic_settings

    settings, decisions = await topic_settings(config.kafka, existing), config.topics.decisions
    findings = of_decisions(decisions, settings.get(decisions, {}))
    for fault in faults(config, settings).values():
        text, _, advice = fault.partition(". Mend it: ")
        findings.append(Finding("fail", "topic", text, advice))
    if hidden := sorted(set(existing) - settings.keys()):
        text = f"the settings of {', '.join(hidden)} can't be seen: would Kafka delete what must stay?"
        findings.append(Finding("warn", "topic", text, "give the right to DescribeConfigs (deploy/kafka/acls.sh)"))
    return findings


def of_decisions(name: str, settings: Mapping[str, str]) -> list[Finding]:
    """What of the decisions topic's configuration loses what stands; of what the broker does not say, nothing."""
    from pipeline.sinks.topics import DECISIONS_CONFIG

    kept_ms, wanted_ms = int(settings.get("retention.ms", -1)), int(DECISIONS_CONFIG["retention.ms"])
    wrong = {
        "retention.ms": 0 <= kept_ms < wanted_ms and (
            f"{kept_ms / 86_400_000:.1f} days: after so many without a responder, less one, what stands is forgotten "
            "(acts that were to end, the kill switch, the stage)"
        ),
        "message.timestamp.type": settings.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime"
        and "caps and ends would go by the clocks of whoever writes",
        "cleanup.policy": "compact" in settings.get("cleanup.policy", "") and "its records have no keys: all are lost",
    }  # fmt: skip
    return [
        Finding(
            "warn" if setting == "retention.ms" else "fail", "topic", f"{name}: {setting}: {why}",
            f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config "
            f"{setting}={DECISIONS_CONFIG[setting]}",
        )
        for setting, why in wrong.items() if why
    ]  # fmt: skip


def _missing(config: Config, name: str) -> Finding:
    if config.kafka.declare_topics:
        return Finding("warn", "topic", f"{name} is missing", "the first worker creates it (kafka.declare_topics)")
    return Finding("fail", "topic", f"{name} is missing", "create it (deploy/ has the commands), or set declare_topics")


async def check_clickhouse(config: Config) -> list[Finding]:
    """Reachable, no migration missing, days summed up. Raises ConfigError, Fatal or Retry where it can't be asked."""
    from pipeline.migrate import migrate
    from pipeline.refreshes import findings, refreshes
    from pipeline.sinks.connect import display_name

    waiting = migrate(config.clickhouse, dry_run=True)
    where = f"{display_name(config.clickhouse)}, database {config.clickhouse.database}"
    if waiting:
        text = f"{where}: {len(waiting)} migrations are missing ({', '.join(waiting)})"
        return [Finding("fail", "clickhouse", text, "run `keywatch migrate`")]
    up_to_date = Finding("ok", "clickhouse", f"{where}: tables are up to date")
    summed = findings(config.clickhouse, refreshes(config.clickhouse))
    return [up_to_date, *_check_replicas(config), *summed, *_check_sole_writer(config)]


def _check_replicas(config: Config) -> list[Finding]:
    """Whether a Replicated database copies all tables to all of its servers; nothing where it is another."""
    from pipeline.asking.answers import connected
    from pipeline.replicas import findings, is_replicated, replicas

    with connected(config.clickhouse) as client:
        return findings(config.clickhouse.database, replicas(client)) if is_replicated(client) else []


_WRITTEN: Final = "SELECT epoch FROM requests WHERE ts > now() - INTERVAL 10 MINUTE GROUP BY epoch ORDER BY epoch"


def _check_sole_writer(config: Config) -> list[Finding]:
    """Whether events of one topic only are written here: two clusters in one database are one fleet to every query."""
    from pipeline.asking.answers import connected

    with connected(config.clickhouse) as client:
        epochs = [row[0] for row in client.query(_WRITTEN).result_rows]
    if len(epochs) < 2:
        return []
    text = f"{config.clickhouse.database}.requests has events of {len(epochs)} topics within 10 minutes: "
    advice = "give each cluster and environment a clickhouse.database of its own; after a topic made anew it passes"
    return [Finding("warn", "clickhouse", text + ", ".join(epochs), advice)]


async def check_geo(config: Config) -> list[Finding]:
    """Which databases, how old, under which licence. Raises ConfigError for one that can't be read."""
    from pipeline.geo.provider import open_geo

    geo = open_geo(config.geo)
    now = datetime.now(UTC)
    findings = []
    for base in geo.databases():
        days = (now - base.built_at).days
        text = f"{base.name} of {base.built_at:%Y-%m-%d} ({days} days old): {base.description or 'no licence stated'}"
        old = days > (OLD_DAYS if base.packaged else STALE_DAYS)
        newer = "set geo.country_db and geo.asn_db to newer files of your own (GeoLite2, DB-IP, IPinfo)"
        renew = f"fetch geo.{base.setting}_db anew and restart the workers"
        advice = (newer if base.packaged else renew) if old else ""
        findings.append(Finding("warn" if old else "ok", "geo", text, advice))
    return findings


async def check_ports(config: Config) -> list[Finding]:
    """What listens beyond this machine, and who may then do what; nothing where all is on loopback."""
    return list(beyond(config))


async def check_webhooks(config: Config) -> list[Finding]:
    """Whether each endpoint's URL is allowed, its name resolves to addresses that may be called, and one answers."""
    if not config.respond.endpoints:
        advice = "add [[respond.endpoints]] with name, url and secret"
        return [Finding("warn", "webhooks", "no endpoint: incidents reach Kafka and ClickHouse only", advice)]
    return [await _check_endpoint(endpoint) for endpoint in config.respond.endpoints]


async def check_adapters(config: Config) -> list[Finding]:
    """What stands in the way of acting on the gateways of `respond.adapters`. Raises ConfigError."""
    from pipeline.respond.adapters import report

    findings = []
    for name, problems in (await report.check(config.respond)).items():
        about = f"adapter {name}"
        if not problems:
            findings.append(Finding("ok", about, "answers, and takes our credential; nothing was changed"))
        findings += [Finding("fail", about, line, "`keywatch adapters check` asks again") for line in problems]
    return findings


async def _check_endpoint(endpoint: Endpoint) -> Finding:
    from pipeline.respond.delivery.address import AddressError, host_of, is_public, system_look_up

    about = f"{endpoint.kind} {endpoint.name}"
    try:
        host, port = host_of(endpoint.target, endpoint.allow_private)
        addresses = await system_look_up(host, port)
    except AddressError as error:
        return Finding("fail", about, str(error), "set respond.endpoints.url to an https URL")
    except OSError:
        return Finding("fail", about, "its host name does not resolve", "check respond.endpoints.url and the resolver")
    private = [address for address in addresses if not is_public(address)]
    if private and not endpoint.allow_private:
        return Finding(
            "fail", about, f"{host} is the private address {private[0]}", "set allow_private if that is meant"
        )
    if not await _accepts(addresses[0], port):
        text = f"{host} resolves to {addresses[0]}, where nobody accepts a connection on port {port}"
        return Finding("fail", about, text, "start the receiver, or open the way to it in firewall and NetworkPolicy")
    return Finding("ok", about, f"{host} is {', '.join(addresses[:3])} and accepts connections; nothing was sent")


async def _accepts(address: str, port: int) -> bool:
    """Connects and hangs up: a request would have to be a signed alert."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
