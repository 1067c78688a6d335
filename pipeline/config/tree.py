"""The configuration: one frozen tree, built once (`file.py`), passed down by part.

Secrets are of type `Secret`, whose repr is stars.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.config.night import Cases, Drill, Endpoint, Night
from pipeline.config.policy import Approver, Policy, Rule
from pipeline.config.setting import Count, Name, Port, Seconds, Secret
from pipeline.respond.adapters.settings import Adapters, Enforcement

__all__ = ["Config", "Count", "Endpoint", "Name", "Port", "Seconds", "Secret"]  # types of settings, too


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the brokers, and how the workers' group behaves."""

    brokers: Annotated[str, Meta(min_length=1)] = "localhost:9092"  # HOST:PORT of one broker or several, by comma
    security: Annotated[str, Meta(pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")] = "PLAINTEXT"  # how to connect
    sasl_mechanism: Annotated[str, Meta(pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")] = (
        "SCRAM-SHA-512"  # with SASL: how to sign in
    )
    username: str = ""  # with SASL
    password: Secret = Secret("")  # with SASL
    ca_file: str = ""  # PEM of who signed the brokers' certificates; "" is the system's
    cert_file: str = ""  # PEM of our own certificate and its chain, where brokers ask clients for one (mTLS)
    key_file: str = ""  # PEM of its private key; renewed files are read at the next connection, without a restart
    key_password: Secret = Secret("")  # of an encrypted key_file
    group: Name = "keywatch"  # the workers' consumer group; whoever shares it shares the partitions
    client_id: str = "keywatch"  # how the brokers' logs and quotas know us
    instance_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,249}$")] = (
        ""  # a worker's own for ever (a StatefulSet's pod name): a restart within session_timeout_s moves no partition
    )
    session_timeout_s: Seconds = 45.0  # a member that is silent for so long is taken for dead
    heartbeat_s: Seconds = 3.0  # how often a member shows that it lives; less than half of session_timeout_s
    rebalance_timeout_s: Seconds = 60.0  # how long members may take to hand over
    declare_topics: bool = True  # create missing topics; False in production with least privilege
    replication: Count = 1  # of topics it creates
    partitions: Count = 8  # of topics it creates


class Topics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the topics: Kafka's letters, digits, `.`, `_` and `-`."""

    raw: Name = "gateway.raw"  # gateways' logs as they write them, for `keywatch intake`
    requests: Name = "api.requests"  # events, keyed by key_id; the workers read them
    rejected: Name = "api.requests.rejected"  # records that are no event, with the reason
    keys: Name = "api.keys"  # what is declared of each key (compacted)
    control: Name = "api.control"  # what people tell: feedback, mutes, planned events
    incidents: Name = "api.incidents"  # every incident at each revision, for you and for the responder
    decisions: Name = "api.decisions"  # what the responders and people decide: caps, approvals, cases; one order
    responses: Name = "api.responses"  # the audit: what was decided and done, and what came of it
    pages: Name = "keywatch.pages"  # the changelog of state; same partition count as `requests`
    sightings: Name = "api.sightings"  # by network: what the workers of `requests` tell `--topology sources`
    key_events: Name = "api.key_events"  # by key: what is done to keys, for `--topology lifecycle`
    sources_pages: Name = "keywatch.sources"  # state of these two, as `pages`
    lifecycle_pages: Name = "keywatch.lifecycle"  # as `sources_pages`, of `--topology lifecycle`


class ClickHouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the tables are, and how rows go there."""

    url: str = "http://localhost:8123"  # or chdb:///absolute/path for one process alone
    database: str = "keywatch"  # made by `keywatch migrate`; the first part of every table's name
    username: str = "default"  # who writes (worker) or reads (people's commands)
    password: Secret = Secret("")  # of that user
    ca_file: str = ""  # https: PEM of who signed the server's certificate; "" is the system's
    insert_s: Seconds = 1.0  # rows are collected for so long, then written in one insert
    timeout_s: Seconds = 30.0  # an insert or query that takes longer has failed; inserts are tried again
    max_pending_rows: Count = 500_000  # at the bound consumption pauses
    sample_one_in: Count = 1  # of `requests`; aggregates are never sampled
    expire: bool = True  # False: `migrate` takes the TTLs off, so that a backfill of old logs stays


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch worker`: what it takes at a time, when it writes down what it knows, and when it had better stop."""

    slice_events: Count = 8000  # the most that is judged in one go
    slice_bytes: Count = 2 << 20  # the same, by size
    checkpoint_s: Seconds = 5.0  # how often state and offsets are written
    stop_s: Seconds = 20.0  # after SIGTERM: finish, write, commit within this
    stuck_s: Seconds = 120.0  # records wait and no slice was done for so long: the worker ends itself
    lateness_s: Seconds = 120.0  # events may come so much out of order; windows end so much later
    max_keys_per_partition: Count = 200_000  # beyond it the key that was unused for longest makes room
    partitioner: Annotated[str, Meta(pattern="^(murmur2|crc32)$")] = (
        "murmur2"  # murmur2 (Java, librdkafka *_random) | crc32 (librdkafka's default)
    )
    ticks: bool = True  # write a tick into an idle partition each minute, so that time goes on there
    tell: bool = True  # write to topics.sightings and topics.key_events what the other topologies need
    max_reject_ratio: Annotated[float, Meta(gt=0, le=1)] = (
        0.5  # of the last 10,000 records of a partition: above it the worker stops
    )
    max_reject_run: Count = 5_000  # in a row
    metrics_host: str = "127.0.0.1"  # where /metrics, /livez and /readyz listen
    metrics_port: Port = 9464  # of the same; 0 is any free one
    topic_epoch: str = ""  # "" is the broker's topic id


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keywatch worker --topology sources` has of its own; all else is [worker]'s."""

    metrics_host: str = "127.0.0.1"  # as worker.metrics_host
    metrics_port: Port = 9467  # as worker.metrics_port


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `Sources`, of `--topology lifecycle`."""

    metrics_host: str = "127.0.0.1"  # as worker.metrics_host
    metrics_port: Port = 9468  # as worker.metrics_port


class Geo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which databases say where an address is."""

    country_db: str = ""  # MMDB files of your own; "" is the one that ships with the package
    asn_db: str = ""  # the same, of networks
    city_db: str = ""  # the same, of cities; none ships with the package


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of one automatic act, revoke: short for a policy with one rule (`pipeline/respond/ladder.py`)."""

    mode: Annotated[str, Meta(pattern="^(off|simulate|enforce)$")] = "simulate"  # off | simulate | enforce
    endpoint: str = ""  # name of the webhook endpoint that obeys `key.revoke`
    min_severity: Annotated[str, Meta(pattern="^(medium|high|critical)$")] = "high"  # of the incident
    environments: tuple[str, ...] = ("live", "test")  # of the key, as declared
    detectors: tuple[str, ...] = ()  # at least one of these among the findings; () is any
    min_family_bits: Annotated[float, Meta(ge=0, le=1000)] = (
        10.0  # at least two findings of different families with more than that, given the other
    )
    max_per_hour: Annotated[int, Meta(ge=0)] = 3  # different keys
    max_per_day: Annotated[int, Meta(ge=0)] = 10  # different keys
    max_share_of_active: Annotated[float, Meta(ge=0, le=1)] = 0.001  # of the active keys in the catalogue
    max_evidence_age_s: Seconds = 600.0  # older evidence is no ground to act


class Respond(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch respond`: who acts on what, and who is told."""

    group: Name = "keywatch-respond"  # the responders' consumer group
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
    connect_timeout_s: Seconds = 3.0  # of a call to an endpoint or gateway
    total_timeout_s: Seconds = 15.0  # of the same, answer included
    metrics_host: str = "127.0.0.1"  # as worker.metrics_host
    metrics_port: Port = 9465  # as worker.metrics_port


class Intake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch intake`: which log, from where."""

    format: str = "native"  # of the log: kong, nginx, otel, ... (`keywatch doctor --sample FILE` names it)
    key_field: str = ""  # the record's field that names the key, if not its format's; combined: "user" or "address"
    group: Name = "keywatch-intake"  # intake's consumer group
    http_host: str = "127.0.0.1"  # `intake --from http`: where it listens; beyond loopback it needs http_token
    http_port: Port = 8085  # of the same
    http_token: Secret = Secret("")  # what the gateway sends as a bearer token
    pepper: Secret = Secret("")  # HMAC of raw keys where no public id exists; never logged
    trusted_proxies: tuple[str, ...] = ()  # CIDR of what stands between callers and the gateway; X-Forwarded-For is
    # read from the right for as long as its hops are among these. () is: the gateway's peer is the caller
    registry_url: str = ""  # a schema registry (Confluent's API), for raw topics in Avro or Protobuf
    registry_username: str = ""  # of the registry
    registry_password: Secret = Secret("")  # of the registry
    metrics_host: str = "127.0.0.1"  # as worker.metrics_host
    metrics_port: Port = 9466  # as worker.metrics_port

    def __post_init__(self) -> None:
        """Raises ValueError for what is no network, and for one that trusts everybody."""
        for proxies in map(ip_network, self.trusted_proxies):
            if not proxies.prefixlen or str(proxies) == "::ffff:0:0/96":
                raise ValueError(f"{proxies} trusts everybody: any caller could choose his address")


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One who may use the console, by a token of his own; or a program."""

    name: Name  # as the log of the console names them
    role: Annotated[str, Meta(pattern="^(viewer|responder|admin)$")] = (
        "viewer"  # viewer reads, responder acts on incidents, admin has the kill switch
    )
    token: Secret  # at least 20 characters
    machine: bool = False  # a program: its token opens /api/v1 and no page, as a person's opens pages and not that


class Console(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch console`: people sign in by token, or a proxy that has signed them in says who they are."""

    host: str = "127.0.0.1"  # where it listens; beyond loopback it needs secure_cookie
    port: Port = 8090  # of the same
    people: tuple[Person, ...] = ()
    session_s: Seconds = 43_200.0  # a sign-in lasts so long
    session_key: Secret = Secret("")  # signs sessions and forms, at least 32 characters; "" is a new one at each start:
    # a restart then signs everybody out, and of two replicas each refuses the other's sign-ins and forms
    secure_cookie: bool = False  # set where people reach it by https, as they must beyond loopback
    proxy_secret: Secret = Secret("")  # the proxy's X-Keywatch-Proxy; "" is no proxy
    proxy_addresses: tuple[str, ...] = ("127.0.0.1/32", "::1/128")  # where it connects from; no other is believed
    proxy_user_header: str = "X-Forwarded-User"  # in which it names who signed in; or X-Forwarded-Email, ...
    proxy_groups_header: str = "X-Forwarded-Groups"  # by commas
    proxy_groups: dict[str, Annotated[str, Meta(pattern="^(viewer|responder|admin)$")]] = {}  # group to role: where it
    # has any, who is in none of them may not come in; where it has none, all are viewers or what the role header says
    pagerduty_secret: Secret = Secret("")  # of PagerDuty's V3 webhook to /hooks/pagerduty; "" is no such address
    proxy_role_header: str = ""  # says viewer, responder or admin; "" is viewer. The proxy must drop what clients send
    metrics_host: str = "127.0.0.1"  # as worker.metrics_host
    metrics_port: Port = 9469  # as worker.metrics_port


class KeyLife(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keywatch keys audit`, `manifest` and `rotations` go by; the last three are the misuse detector's, too."""

    never_used_days: Count = 14  # a key that is older and was never used is listed
    unused_days: Count = 90  # a key that was not used for so long is listed
    one_network_days: Count = 7  # a key used on so many days from one network only could have an allow-list
    quiet_h: Count = 24  # the least time without use after which a rotated key counts as drained
    head_room: Annotated[float, Meta(ge=1, le=100)] = 2.0  # of a proposed rate limit over the busiest minute seen
    rotation_days: Count = 365  # rotation at least yearly
    overlap_days: Count = 7  # of a rotation: so long after the new key was made the old one ought to be revoked
    test_networks: tuple[str, ...] = ()  # CIDR of CI and staging: a live key has no business there

    def __post_init__(self) -> None:
        """Raises ValueError for what is no network."""
        for text in self.test_networks:
            ip_network(text, strict=False)


class Leaks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /leaks` beside intake's HTTP endpoint: what leak feeds and people report."""

    enabled: bool = False  # take reports
    token: Secret = Secret("")  # of manual reports; without one only signed ones are taken
    public_keys_file: str = ""  # GitHub's keys as /meta/public_keys/secret_scanning answers them
    public_keys_url: str = ""  # the same, fetched anew every hour
    look_every_s: Seconds = 60.0  # at open leaks: used by a stranger now, or over; 0: never
    url: str = "http://127.0.0.1:8085/leaks"  # where `keywatch leaks report` goes


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Incidents per 100,000 key-days that chance alone may open (design, D3)."""

    listed: Annotated[float, Meta(gt=0, le=100_000)] = 100.0  # to be shown at all
    page: Annotated[float, Meta(gt=0, le=100_000)] = 10.0  # to wake somebody


class Plugin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keywatch plugin`: a River anomaly model over each key's minutes, off the hot path."""

    model: str = ""  # a class of River; "" is river.anomaly.HalfSpaceTrees
    options: dict[str, float | int | bool | str] = {}  # its arguments
    finding_bits: Annotated[float, Meta(gt=0, le=64)] = 12.0  # a score rarer than this is a finding
    incidents: bool = False  # may it open incidents by itself?
    learn_days: Annotated[float, Meta(ge=0, le=90)] = 7.0  # of a key before it is judged
    poll_s: Seconds = 15.0  # how often new minutes are asked for


class Privacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keywatch privacy` goes by."""

    truncate_addresses_days: Annotated[int, Meta(ge=0, le=3650)] = 30  # then a caller's /24 or /48 is left; 0: never


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
    privacy: Privacy = Privacy()
    detectors: dict[str, dict[str, float | int | bool]] = {}
