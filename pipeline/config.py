"""The configuration: one frozen tree, built once (`config_file.py`), passed down by part.

Secrets are of type `Secret`, whose repr is stars.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.config_night import Cases, Drill, Endpoint, Night
from pipeline.policy import Approver, Policy, Rule
from pipeline.respond.adapters.settings import Adapters, Enforcement
from pipeline.setting import Count, Name, Port, Seconds, Secret

__all__ = ["Config", "Count", "Endpoint", "Name", "Port", "Seconds", "Secret"]  # types of settings, too


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    brokers: Annotated[str, Meta(min_length=1)] = "localhost:9092"
    security: Annotated[str, Meta(pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")] = "PLAINTEXT"
    sasl_mechanism: Annotated[str, Meta(pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")] = "SCRAM-SHA-512"
    username: str = ""
    password: Secret = Secret("")
    ca_file: str = ""
    group: Name = "keywatch"
    client_id: str = "keywatch"
    instance_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,249}$")] = (
        ""  # a worker's own for ever (a StatefulSet's pod name): a restart within session_timeout_s moves no partition
    )
    session_timeout_s: Seconds = 45.0
    heartbeat_s: Seconds = 3.0
    rebalance_timeout_s: Seconds = 60.0
    declare_topics: bool = True  # create missing topics; False in production with least privilege
    replication: Count = 1
    partitions: Count = 8  # of topics it creates


class Topics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    raw: Name = "gateway.raw"
    requests: Name = "api.requests"
    rejected: Name = "api.requests.rejected"
    keys: Name = "api.keys"
    control: Name = "api.control"  # what people tell: feedback, mutes, planned events
    incidents: Name = "api.incidents"
    decisions: Name = "api.decisions"
    responses: Name = "api.responses"
    pages: Name = "keywatch.pages"  # the changelog of state; same partition count as `requests`
    sightings: Name = "api.sightings"  # by network: what the workers of `requests` tell `--topology sources`
    key_events: Name = "api.key_events"  # by key: what is done to keys, for `--topology lifecycle`
    sources_pages: Name = "keywatch.sources"  # state of these two, as `pages`
    lifecycle_pages: Name = "keywatch.lifecycle"


class ClickHouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str = "http://localhost:8123"  # or chdb:///absolute/path for one process alone
    database: str = "keywatch"
    username: str = "default"
    password: Secret = Secret("")
    insert_s: Seconds = 1.0
    timeout_s: Seconds = 30.0
    max_pending_rows: Count = 500_000  # at the bound consumption pauses
    sample_one_in: Count = 1  # of `requests`; aggregates are never sampled
    expire: bool = True  # False: `migrate` takes the TTLs off, so that a backfill of old logs stays


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    slice_events: Count = 4000
    slice_bytes: Count = 1 << 20
    checkpoint_s: Seconds = 5.0
    stop_s: Seconds = 20.0
    stuck_s: Seconds = 120.0  # records wait and no slice was done for so long: the worker ends itself
    lateness_s: Seconds = 120.0
    max_keys_per_partition: Count = 200_000
    partitioner: Annotated[str, Meta(pattern="^(murmur2|crc32)$")] = (
        "murmur2"  # murmur2 (Java, librdkafka *_random) | crc32 (librdkafka's default)
    )
    ticks: bool = True
    tell: bool = True  # write to topics.sightings and topics.key_events what the other topologies need
    max_reject_ratio: Annotated[float, Meta(gt=0, le=1)] = (
        0.5  # of the last 10,000 records of a partition: above it the worker stops
    )
    max_reject_run: Count = 5_000  # in a row
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    topic_epoch: str = ""  # "" is the broker's topic id


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keywatch worker --topology sources` has of its own; all else is [worker]'s."""

    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9467


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `Sources`, of `--topology lifecycle`."""

    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9468


class Geo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    country_db: str = ""  # MMDB files of your own; "" is the one that ships with the package
    asn_db: str = ""
    city_db: str = ""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of one automatic act, revoke: short for a policy with one rule (`pipeline/respond/ladder.py`)."""

    mode: Annotated[str, Meta(pattern="^(off|simulate|enforce)$")] = "simulate"  # off | simulate | enforce
    endpoint: str = ""  # name of the webhook endpoint that obeys `key.revoke`
    min_severity: Annotated[str, Meta(pattern="^(medium|high|critical)$")] = "high"
    environments: tuple[str, ...] = ("live", "test")
    detectors: tuple[str, ...] = ()  # at least one of these among the findings; () is any
    min_family_bits: Annotated[float, Meta(ge=0, le=1000)] = (
        10.0  # at least two findings of different families above this
    )
    max_per_hour: Annotated[int, Meta(ge=0)] = 3
    max_per_day: Annotated[int, Meta(ge=0)] = 10
    max_share_of_active: Annotated[float, Meta(ge=0, le=1)] = 0.001
    max_evidence_age_s: Seconds = 600.0


class Respond(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    group: Name = "keywatch-respond"
    endpoints: tuple[Endpoint, ...] = ()
    revocation: Revocation = Revocation()  # the old form: one rule alone; not beside policy and rules
    policy: Policy = Policy()
    rules: tuple[Rule, ...] = ()
    approvers: tuple[Approver, ...] = ()
    adapters: Adapters = Adapters()
    enforcement: Enforcement = Enforcement()
    cases: Cases = Cases()
    drill: Drill = Drill()
    night: Night = Night()
    kill_switch_file: str = ""  # while this file exists nothing acts
    connect_timeout_s: Seconds = 3.0
    total_timeout_s: Seconds = 15.0
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9465


class Intake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str = "native"
    key_field: str = ""  # combined logs: "user" (default) or "address"
    group: Name = "keywatch-intake"
    http_host: str = "127.0.0.1"
    http_port: Port = 8085
    http_token: Secret = Secret("")
    pepper: Secret = Secret("")  # HMAC of raw keys where no public id exists; never logged
    registry_url: str = ""  # a schema registry (Confluent's API), for raw topics in Avro or Protobuf
    registry_username: str = ""
    registry_password: Secret = Secret("")
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9466


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One who may use the console, by a token of his own."""

    name: Name
    role: Annotated[str, Meta(pattern="^(viewer|responder|admin)$")] = "viewer"
    token: Secret  # at least 20 characters


class Console(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch console`: people sign in by token, or a proxy that has signed them in says who they are."""

    host: str = "127.0.0.1"
    port: Port = 8090
    people: tuple[Person, ...] = ()
    session_s: Seconds = 43_200.0
    secure_cookie: bool = False  # set where people reach it by https, as they must beyond loopback
    proxy_secret: Secret = Secret("")  # the proxy's X-Keywatch-Proxy; "" is no proxy
    proxy_user_header: str = "X-Forwarded-User"
    proxy_role_header: str = ""  # says viewer, responder or admin; "" is viewer. The proxy must drop what clients send


class KeyLife(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keywatch keys audit`, `manifest` and `rotations` go by."""

    never_used_days: Count = 14  # a key that is older and was never used is listed
    unused_days: Count = 90
    rotation_days: Count = 365  # rotation at least yearly
    one_network_days: Count = 7  # a key used on so many days from one network only could have an allow-list
    overlap_days: Count = 7  # of a rotation: so long after the new key was made the old one ought to be revoked
    quiet_h: Count = 24  # the least time without use after which a rotated key counts as drained
    head_room: Annotated[float, Meta(ge=1, le=100)] = 2.0  # of a proposed rate limit over the busiest minute seen


class Leaks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /leaks` beside intake's HTTP endpoint: what leak feeds and people report."""

    enabled: bool = False
    token: Secret = Secret("")  # of manual reports; without one only signed ones are taken
    public_keys_file: str = ""  # GitHub's keys as /meta/public_keys/secret_scanning answers them
    public_keys_url: str = ""  # the same, fetched anew every hour
    url: str = "http://127.0.0.1:8085/leaks"  # where `keywatch leaks report` goes


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Incidents per 100,000 key-days that chance alone may open (design, D3)."""

    listed: Annotated[float, Meta(gt=0, le=100_000)] = 100.0
    page: Annotated[float, Meta(gt=0, le=100_000)] = 10.0


class Plugin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch plugin`: a River anomaly model over each key's minutes, off the hot path."""

    model: str = ""  # a class of River; "" is river.anomaly.HalfSpaceTrees
    options: dict[str, float | int | bool | str] = {}  # its arguments
    finding_bits: Annotated[float, Meta(gt=0, le=64)] = 12.0
    incidents: bool = False  # may it open incidents by itself?
    learn_days: Annotated[float, Meta(ge=0, le=90)] = 7.0
    poll_s: Seconds = 15.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    clickhouse: ClickHouse = ClickHouse()
    worker: Worker = Worker()
    sources: Sources = Sources()
    lifecycle: Lifecycle = Lifecycle()
    geo: Geo = Geo()
    respond: Respond = Respond()
    intake: Intake = Intake()
    console: Console = Console()
    key_life: KeyLife = KeyLife()
    leaks: Leaks = Leaks()
    budget: Budget = Budget()
    plugin: Plugin = Plugin()
    detectors: dict[str, dict[str, float | int | bool]] = {}
