"""What the commands `keywatch policy ...` print. Each returns its exit code."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from pipeline import moments
from pipeline.asking.answers import Row, Shown, print_json, say_line
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import read_catalogue
from pipeline.respond.commands import REFUSED, declared, show
from pipeline.respond.ladder import ladder_of
from pipeline.respond.policy.check import faults, shares
from pipeline.respond.promotion.earned import Stage


def check_policy(config: Config, as_json: bool = False) -> int:
    """What is wrong, can never match or is unsafe. Exit code 1 where something is wrong or can never match."""
    from detectors import DETECTORS
    from pipeline.respond.responder import adapters_of, matrices_of

    matrices = matrices_of(config.respond, adapters_of(config.respond))
    names = frozenset(detector.name for detector in DETECTORS)
    active_keys, ladder = active_keys_of(config), ladder_of(config.respond)
    found = list(faults(config.respond, matrices, names, active_keys))
    code = REFUSED if any(fault.level != "unsafe" for fault in found) else 0
    if as_json:
        print_json([{"level": fault.level, "where": fault.where, "words": fault.words} for fault in found])
        return code
    for fault in found:
        say_line(f"{fault.level}: {fault.where}: {fault.words}")
    if not active_keys and (needed := [f"{name} from {least:,} on" for name, _, least in shares(ladder)]):
        say_line(f"by max_share_of_active something is acted on only with enough active keys: {', '.join(needed)}")
    say_line(f"policy {ladder.version}, mode {ladder.policy.mode}, {len(ladder.rules)} rules, {len(found)} remarks")
    return code


def active_keys_of(config: Config) -> int:
    """As the catalogue says; 0 where it can't be read at once."""

    read = declared(config)
    return sum(key.status == "active" for _, key in read.items()) if read else 0


_TRIED: Final[tuple[Shown, ...]] = (
    ("at", lambda row: moments.of_us(row["at_us"]), "left"),
    ("key", lambda row: row["key_id"], "left"),
    ("severity", lambda row: row["severity"], "left"),
    ("rule", lambda row: row["rule"], "left"),
    ("would be", lambda row: f"{row['word']} {row['rung'] if row['word'] != 'refused' else row['guard']}", "left"),
    ("hour, day", lambda row: f"{row['hour']}, {row['day']}" if row["hour"] else "", "left"),
    ("why", lambda row: row["reason"], "left"),
)


def try_policy(config: Config, since: str, stage: Stage, as_json: bool) -> int:
    """What the policy would have done with the incidents since then."""
    from pipeline.asking.answers import connected
    from pipeline.respond.fence import usual_networks
    from pipeline.respond.promotion import trial
    from pipeline.respond.responder import adapters_of, matrices_of

    from_us = int(moments.past(since, "--from", moments.now()).timestamp() * 1e6)
    if from_us > time.time() * 1e6:
        raise ConfigError(f"--from {since} is in the future")
    keys = dict(asyncio.run(read_catalogue(config)).items())
    with connected(config.clickhouse) as client:
        past = trial.Past(
            ladder_of(config.respond), config.respond.approvers, keys,
            matrices_of(config.respond, adapters_of(config.respond)),
            lambda key, before_us: usual_networks(client, key, before_us), stage,
        )  # fmt: skip
        results = trial.tried(trial.incidents_since(client, from_us), past)
    rows = [_tried_row(each) for each in results]
    show("what would have been done", rows, _TRIED, "no incident since then", as_json)
    for word, by, number in [] if as_json else trial.summary(results):
        say_line(f"{number} {word} {by}")
    return 0


def _tried_row(each: Any) -> Row:
    row = {name: getattr(each, name) for name in ("at_us", "rule", "rung", "word", "guard", "reason", "hour", "day")}
    about = {name: getattr(each.incident, name) for name in ("incident_id", "key_id", "severity")}
    return {**about, **row}
