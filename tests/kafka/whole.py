"""The whole product on a cluster, as it runs: workers and a responder as processes, the catalogue on its topic, a geo
database in a file, ClickHouse. What came out must be what a clean pass gives, judged with the side inputs that the
table `adoptions` names and in its offsets, and what a clean responder decides on the clean pass's incidents.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from bisect import bisect_right
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline import moments
from pipeline.config.tree import ClickHouse, Config, Geo, Respond, Revocation, Secret
from pipeline.control.controls import NO_CONTROLS
from pipeline.control.operate import feedback_on
from pipeline.control.topic import read_controls, say
from pipeline.core import Sides
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue, publish_keys
from pipeline.respond.audit import Positioned, rows
from pipeline.runners.parts import config_version
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, fetched_highwaters, read_pages
from pipeline.sinks.topics import create_topics, partitions_of, topic_specs
from pipeline.state.partition import Meta
from pipeline.state.recover import load
from schemas.control import Mute, Verdict
from schemas.incident import Incident
from schemas.key import Key
from schemas.response import Response
from tests.kafka.cluster import LIFE_S, SLOWER
from tests.kafka.comparison import MOST_MB, Clean, assert_clean, clean_pass
from tests.kafka.deployment import ROOT, Deployment, pid_of, produce, read_topic
from tests.kafka.loads import DECOYS, real_traffic, traffic
from tests.kafka.outside import Outside

SIDES_S: Final = 0.5
"""How often the workers look for another catalogue here."""
POLICY: Final = Revocation(
    mode="simulate", max_per_hour=1_000, max_per_day=1_000, max_share_of_active=1.0, max_evidence_age_s=86_400.0
)
"""How old evidence is depends on when it is decided on, and the clean responder decides at the end: what is of now is
fresh at both times, and history at neither."""


class Whole(Deployment):
    """See the module. Made by `whole`."""

    outside: Outside
    rng: random.Random

    def prepare(self, outside: Outside, rng: random.Random, real_logs: bool = False) -> None:
        """Everything but the processes. `real_logs`: those of `tests/real_data.py` are the load."""
        self.outside, self.rng, self.core = outside, rng, "real"
        self.responders: list[subprocess.Popen[bytes]] = []
        self.clean_responder: subprocess.Popen[bytes] | None = None
        self._given: set[tuple[str, int]] = set()  # incidents that it has had
        self.highest_mb = 0.0
        self.swap_geo(0)
        self.run(create_topics(self.config.kafka, list(topic_specs(self.config))))
        self.keys: dict[str, Key] = {}
        self.catalogues: dict[str, Catalogue] = {Catalogue.empty().version: Catalogue.empty()}
        decoys = [_declared(f"decoy_{n}", decoy=True) for n in range(DECOYS)]
        self.declare(decoys + [_declared(f"pk_{n}") for n in range(6)])
        self._records = real_traffic(rng) if real_logs else traffic(rng.randrange(100), rng)

    @property
    def config(self) -> Config:
        """As workers and responders have it."""
        outside: ClickHouse | None = getattr(getattr(self, "outside", None), "config", None)
        geo = Geo(country_db=str(self.folder / "geo.mmdb"))
        respond = Respond(group=f"{self.prefix}.respond", revocation=POLICY, metrics_port=0)
        kafka = msgspec.structs.replace(super().config.kafka, session_timeout_s=6.0 * SLOWER, heartbeat_s=0.5)
        return msgspec.structs.replace(
            super().config, kafka=kafka, clickhouse=outside or ClickHouse(), geo=geo, respond=respond
        )

    # --- what comes in

    def produce(self, count: int) -> None:
        """The next records: first days of history, then what happens now."""
        produce(self, [next(self._records) for _ in range(count)])
        self.produced += count

    def declare(self, keys: list[Key]) -> str:
        """Publish these keys; returns the catalogue's version with them. A worker may look when one is there."""
        halves = [Catalogue.of((self.keys | {key.key_id: key}).values()) for key in keys] if self.keys else []
        self.catalogues |= {half.version: half for half in halves}
        self.keys |= {key.key_id: key for key in keys}
        self.run(publish_keys(self.config, keys))
        catalogue = Catalogue.of(self.keys.values())
        self.catalogues[catalogue.version] = catalogue
        return catalogue.version

    def declare_anew(self) -> None:
        """Other owners of some keys; returns when every partition is judged with it.

        What the guards ask of a key stays as it is, since a decision rests on the catalogue of its own moment.
        """
        number = len(self.catalogues)
        keys = [_declared("pk_0", owner=f"owner {number}"), _declared(f"pk_{number % 6}", owner=f"owner {number}")]
        version = self.declare(keys)
        self.wait(lambda: self.versions("catalogue") == {version}, "adopted")
        time.sleep(3 * SIDES_S)  # also a worker without partitions has looked

    def speak(self) -> None:
        """Feedback on an incident that was told, and a mute; returns when every partition is judged with both."""
        told = {each.incident_id: each for each in map(_incident, self.run(self._told()))}
        about = told[self.rng.choice(sorted(told))]
        verdict: Verdict = self.rng.choice(("expected", "malicious"))
        until = moments.text(moments.now() + timedelta(hours=1))
        muted = Mute(
            key_id=f"decoy_{self.rng.randrange(DECOYS)}", detector="decoy", until=until, at=moments.text(moments.now()),
            reason="test", owner_of_mute="me",
        )  # fmt: skip
        self.run(say(self.config, [feedback_on(about, verdict, "because", "me", "", ()), muted]))
        controls = self.run(read_controls(self.config))
        self.wait(lambda: self.versions("controls") == {controls.version}, "heard")
        time.sleep(3 * SIDES_S)  # also a worker without partitions has listened

    async def _told(self) -> list[Any]:
        return await read_topic(self.config, self.config.topics.incidents)

    def swap_geo(self, number: int) -> None:
        """Put another geo database into the workers' place; they read it when they start."""
        places = self.folder / f"geo{number % 2}.mmdb"
        if not places.exists():
            write_places(places, ("DE", "BR")[number % 2])
        shutil.copyfile(places, self.folder / "geo.new")
        (self.folder / "geo.new").replace(self.folder / "geo.mmdb")

    def sides_now(self) -> Sides:
        """What a worker that starts now judges with, as long as nobody has said anything."""
        geo = _open(self.folder / "geo.mmdb")
        return Sides(Catalogue.of(self.keys.values()), geo, config_version(self.config), NO_CONTROLS)

    # --- processes

    def start(self, fault: str = "") -> subprocess.Popen[bytes]:
        """A worker."""
        self.environment |= {"KW_CONFIG": _as_json(self.config), "KW_SIDES_S": str(SIDES_S)}
        return super().start(fault)

    def start_responder(self, config: Config | None = None) -> subprocess.Popen[bytes]:
        """A responder; with `config` the clean one."""
        environment = os.environ | {"KW_CONFIG": _as_json(config or self.config)}
        command = ["timeout", "-s", "KILL", str(LIFE_S), sys.executable, "-m", "tests.kafka.run_responder"]
        with (self.folder / f"responder{len(self.responders)}.log").open("wb") as out:
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out)
        self.responders.append(process)
        return process

    @property
    def responder(self) -> subprocess.Popen[bytes]:
        """The product's newest."""
        return [each for each in self.responders if each is not self.clean_responder][-1]

    def kill_all(self) -> None:
        """Whatever still runs."""
        super().kill_all()
        for process in self.responders:
            if process.poll() is None:
                os.kill(pid_of(process), 9)
                process.wait(10)

    def note_memory(self) -> None:
        """Of all workers that run."""
        for worker in self.workers:
            if worker.poll() is None:
                self.highest_mb = max(self.highest_mb, _memory_mb(pid_of(worker)))

    def versions(self, name: str) -> set[str]:
        """Of a side input, over all partitions that have state."""
        pages = self.run(read_pages(self.config.kafka, self.config.topics.pages, range(self.partitions)))
        manifests = [load(number, each, None).manifest for number, each in pages.items()]
        return {getattr(msgspec.msgpack.decode(m.meta, type=Meta), name) for m in manifests if m is not None}

    def wait_responder(self) -> None:
        """Until every incident is handled and the audit is in ClickHouse."""
        self.wait(lambda: self._handled(self.config.topics.incidents, ".respond"), "all incidents handled")
        self.wait(lambda: self._handled(self.config.topics.responses, ".respond-audit"), "the audit is loaded")

    def _handled(self, topic: str, group: str) -> bool:
        kafka = msgspec.structs.replace(self.config.kafka, group=self.prefix + group)
        count = self.run(partitions_of(kafka, [topic]))[topic]
        done = {n: at for n, at in self.run(committed_offsets(kafka, topic)).items() if at}
        return done == {n: end for n, end in self.run(fetched_highwaters(kafka, topic, range(count))).items() if end}

    def unsaved(self) -> list[str]:
        """Incidents of records that are in no checkpoint: judged with other side inputs they would come otherwise."""
        saved = self.manifests()
        told = map(_incident, self.run(self._told()))
        return [each.incident_id for each in told if each.offset >= saved.get(each.partition, 0)]

    # --- what came out

    @property
    def clean_config(self) -> Config:
        """Of a responder that decides on the clean pass's incidents alone."""
        names = {name: f"{self.prefix}.clean.{name}" for name in ("incidents", "decisions", "responses")}
        return msgspec.structs.replace(
            self.config,
            topics=msgspec.structs.replace(self.config.topics, **names),
            respond=msgspec.structs.replace(self.config.respond, group=f"{self.prefix}.clean"),
            clickhouse=self.outside.clean,
        )

    def decide_clean(self, incidents: list[Incident]) -> Decided:
        """What a clean responder decides on all of these; it gets those that it has not had."""
        config = self.clean_config
        if self.clean_responder is None:
            self.run(create_topics(config.kafka, list(topic_specs(config))))
            self.clean_responder = self.start_responder(config)
        fresh = [each for each in incidents if (each.incident_id, each.revision) not in self._given]
        self.run(_publish(config, fresh))
        self._given |= {(each.incident_id, each.revision) for each in fresh}
        wanted = {(each.incident_id, each.revision) for each in incidents if each.change != "closed"}
        made: Decided = set()

        def complete() -> bool:
            nonlocal made
            made = decided(self.responses(config))
            return {mark[:2] for mark in made} == wanted

        self.wait(complete, "decided")
        return made

    def responses(self, config: Config) -> list[Any]:
        """The audit, in order."""
        return self.run(read_topic(config, config.topics.responses))

    def assert_all_as_if_nothing_had_happened(self) -> None:
        """Workers and responders have ended."""
        assert 0 < self.highest_mb < MOST_MB["real"]
        adopted = Adopted(self)
        clean = clean_pass(self, adopted.sides_at)
        assert_clean(self, self.outside, clean)
        assert {each.rule for each in clean.incidents} >= {"proof"}
        self._assert_decided_as_on(clean)
        told = [Positioned(r.partition, r.offset, 0, r.key, r.value) for r in self.responses(self.config)]
        self.outside.write_clean({"responses": rows(told)})
        found, truth = (self.outside.table(each, "responses") for each in (self.outside.config, self.outside.clean))
        assert found == truth, "the audit in ClickHouse is not the topic's"

    def _assert_decided_as_on(self, clean: Clean) -> None:
        truth = self.decide_clean(clean.incidents)
        assert self.clean_responder is not None
        assert self.stop(self.clean_responder) == 0
        self.outside.query("TRUNCATE TABLE responses", self.outside.clean)
        made = decided(self.responses(self.config))
        assert made == truth, (
            f"{len(made - truth)} too many: {list(made - truth)[:3]}; missing: {list(truth - made)[:3]}"
        )
        assert {mark[3] for mark in truth} == {"simulated", "refused"}


class Adopted:
    """By which side inputs each offset was judged, as the table `adoptions` tells."""

    def __init__(self, whole: Whole) -> None:
        self._geo = {geo.build: geo for geo in map(_open, sorted(whole.folder.glob("geo[01].mmdb")))}
        self._catalogues, self._config = whole.catalogues, config_version(whole.config)
        self._controls = whole.run(read_controls(whole.config))
        self._at: dict[tuple[int, str], list[tuple[int, str]]] = {}
        self._known: dict[tuple[str, ...], Sides] = {}
        sql = "SELECT partition, input, offset, version_id FROM adoptions FINAL ORDER BY offset"
        for partition, name, offset, version in whole.outside.query(sql):
            self._at.setdefault((partition, name), []).append((offset, version))
        assert {version for (_, name), all_ in self._at.items() for _, version in all_ if name == "config"} == {
            self._config
        }

    def sides_at(self, partition: int, offset: int) -> Sides:
        """The very same object for the same versions."""
        versions = tuple(self._version(partition, name, offset) for name in ("catalogue", "geo", "controls"))
        if versions not in self._known:
            catalogue, geo = self._catalogues[versions[0]], self._geo[versions[1]]
            end = int(versions[2].rpartition("/")[2] or 0)
            controls = self._controls.until(end) if end else NO_CONTROLS
            self._known[versions] = Sides(catalogue, geo, self._config, controls)
        return self._known[versions]

    def _version(self, partition: int, name: str, offset: int) -> str:
        all_ = self._at.get((partition, name), [])
        before = bisect_right(all_, offset, key=lambda pair: pair[0])
        return all_[before - 1][1] if before else ""  # what was never said has no row


Decided = set[tuple[str, int, str, str, str, tuple[str, ...]]]


def decided(audit: list[Any]) -> Decided:
    """What of each decision must not depend on when it was made: ages are in the words, so who refused is taken."""
    lines = [msgspec.json.decode(each.value, type=Response) for each in audit]
    against = [tuple(guard.guard for guard in x.guards if not guard.passed) for x in lines]
    return {
        (x.incident_id, x.revision, x.stage, x.verdict, x.evidence_hash, no)
        for x, no in zip(lines, against, strict=True)
    }


def _declared(key_id: str, **more: Any) -> Key:
    return Key(key_id=key_id, environment="live", version=1, **more)


def write_places(path: Path, country: str) -> None:
    """A geo database that knows two networks."""
    from mmdb_writer import MMDBWriter
    from netaddr import IPSet

    writer = MMDBWriter(6, f"Test-{country}-Country", ["en"], "test", ipv4_compatible=True)
    writer.insert_network(IPSet(["8.8.8.0/24"]), {"country": {"iso_code": "US"}})
    writer.insert_network(IPSet(["185.220.101.0/24"]), {"country": {"iso_code": country}})
    writer.to_db_file(str(path))


def _open(path: Path) -> Any:
    return open_geo(Geo(country_db=str(path)))


def _memory_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1_024
    except (OSError, IndexError):  # it ends just now
        return 0.0


def _incident(record: Any) -> Incident:
    return msgspec.json.decode(record.value, type=Incident)


async def _publish(config: Config, incidents: list[Incident]) -> None:
    producer = Producer(config.kafka)
    await producer.start()
    for each in incidents:
        await producer.publish(config.topics.incidents, each.key_id.encode(), msgspec.json.encode(each))
    await producer.close()


def _as_json(config: Config) -> str:
    return json.dumps(msgspec.to_builtins(config, enc_hook=lambda secret: Secret.reveal(secret)))
