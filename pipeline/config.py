"""The configuration: one frozen tree, built once from TOML and KEYWATCH_* variables, passed down by part.

KEYWATCH_KAFKA__BROKERS=... overrides kafka.brokers; KEYWATCH_CLICKHOUSE__PASSWORD_FILE=... reads a secret from a
file. Secrets are of type `Secret`, whose repr is stars.
"""

from __future__ import annotations

import msgspec


class Secret(str):
    """A string that never shows itself; `reveal()` where it has to go out."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"

    __str__ = __repr__

    def reveal(self) -> str:
        """The value itself."""
        return str.__str__(self)


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    brokers: str = "localhost:9092"
    security: str = "PLAINTEXT"  # PLAINTEXT | SSL | SASL_PLAINTEXT | SASL_SSL
    sasl_mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: Secret = Secret("")
    ca_file: str = ""
    group: str = "keywatch"
    client_id: str = "keywatch"
    session_timeout_s: float = 45.0
    heartbeat_s: float = 3.0
    rebalance_timeout_s: float = 60.0
    declare_topics: bool = True  # create missing topics; False in production with least privilege
    replication: int = 1
    partitions: int = 8  # of topics it creates


class Topics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    raw: str = "gateway.raw"
    requests: str = "api.requests"
    rejected: str = "api.requests.rejected"
    keys: str = "api.keys"
    incidents: str = "api.incidents"
    decisions: str = "api.decisions"
    responses: str = "api.responses"
    pages: str = "keywatch.pages"  # the changelog of state; same partition count as `requests`


class ClickHouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str = "http://localhost:8123"  # or chdb:///absolute/path for one process alone
    database: str = "keywatch"
    username: str = "default"
    password: Secret = Secret("")
    insert_s: float = 1.0
    timeout_s: float = 30.0
    max_pending_rows: int = 500_000  # at the bound consumption pauses
    sample_one_in: int = 1  # of `requests`; aggregates are never sampled
    expire: bool = True  # False: `migrate` takes the TTLs off, so that a backfill of old logs stays


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    slice_events: int = 1000
    slice_bytes: int = 1 << 20
    checkpoint_s: float = 5.0
    stop_s: float = 20.0
    lateness_s: float = 120.0
    max_keys_per_partition: int = 200_000
    max_windows_per_partition: int = 1_000_000
    partitioner: str = "murmur2"  # murmur2 (Java, librdkafka *_random) | crc32 (librdkafka's default)
    ticks: bool = True
    max_reject_ratio: float = 0.5  # of the last 10,000 records of a partition: above it the worker stops
    max_reject_run: int = 5_000  # in a row
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    topic_epoch: str = ""  # "" is the broker's topic id


class Geo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    country_db: str = ""  # MMDB files of your own; "" is the one that ships with the package
    asn_db: str = ""
    city_db: str = ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    url: str
    secret: Secret  # whsec_...
    events: tuple[str, ...] = ("incident.opened", "incident.escalated", "incident.closed")
    allow_private: bool = False  # demo and tests: loopback targets and plain http


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of the one automatic act of today. Off by default: `simulate` records what would be done."""

    mode: str = "simulate"  # off | simulate | enforce
    endpoint: str = ""  # name of the webhook endpoint that obeys `key.revoke`
    min_severity: str = "high"
    environments: tuple[str, ...] = ("live", "test")
    detectors: tuple[str, ...] = ()  # at least one of these among the findings; () is any
    min_family_bits: float = 10.0  # at least two findings of different families above this
    max_per_hour: int = 3
    max_per_day: int = 10
    max_share_of_active: float = 0.001
    max_evidence_age_s: float = 600.0


class Respond(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    group: str = "keywatch-respond"
    endpoints: tuple[Endpoint, ...] = ()
    revocation: Revocation = Revocation()
    kill_switch_file: str = ""  # while this file exists nothing acts
    connect_timeout_s: float = 3.0
    total_timeout_s: float = 15.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9465


class Intake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str = "native"
    key_field: str = ""  # combined logs: "user" (default) or "address"
    group: str = "keywatch-intake"
    http_host: str = "127.0.0.1"
    http_port: int = 8085
    http_token: Secret = Secret("")
    pepper: Secret = Secret("")  # HMAC of raw keys where no public id exists; never logged


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Incidents per 100,000 key-days that chance alone may open (design, D3)."""

    listed: float = 100.0
    page: float = 10.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    clickhouse: ClickHouse = ClickHouse()
    worker: Worker = Worker()
    geo: Geo = Geo()
    respond: Respond = Respond()
    intake: Intake = Intake()
    budget: Budget = Budget()
    detectors: dict[str, dict[str, float | int | bool]] = {}
