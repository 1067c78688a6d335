"""ClickHouse rows: every table's columns in order, name and type; the migrations in `clickhouse/` say the same.

Rows are full values. `version` (the last offset that a row includes) decides between two writes of one row; `part`
names one life of a window in state: (topic epoch, partition, first offset), so that a late event after eviction
adds a part instead of overwriting the whole. Readers take FINAL and sum over parts.
"""

from __future__ import annotations

from typing import Final

Table = tuple[tuple[str, str], ...]

_LC: Final = "LowCardinality(String)"
_TS: Final = "DateTime64(6, 'UTC')"
_SECOND: Final = "DateTime('UTC')"

REQUESTS: Final[Table] = (
    ("key_id", _LC),
    ("ts", _TS),
    ("request_id", "String"),
    ("method", _LC),
    ("route", _LC),
    ("path", "String"),
    ("status", "UInt16"),
    ("outcome", _LC),
    ("client_ip", "IPv6"),
    ("country", _LC),
    ("asn", "UInt32"),
    ("client", _LC),
    ("user_agent", "String"),
    ("fingerprint", "String"),
    ("latency_ms", "Float32"),
    ("bytes_in", "UInt64"),
    ("bytes_out", "UInt64"),
    ("environment", _LC),
    ("scope", _LC),
    ("late", "UInt8"),
    ("one_in", "UInt16"),
    ("epoch", _LC),
    ("partition", "UInt16"),
    ("offset", "UInt64"),
)

_COUNTS: Final[Table] = (
    ("requests", "UInt64"),
    ("errors_401", "UInt64"),  # answers with 401
    ("errors_403", "UInt64"),  # with 403
    ("errors_404", "UInt64"),  # with 404
    ("errors_429", "UInt64"),  # with 429
    ("errors_4xx", "UInt64"),  # other 4xx
    ("errors_5xx", "UInt64"),  # with any 5xx
    ("bytes_in", "UInt64"),  # of the requests
    ("bytes_out", "UInt64"),  # of the answers
)

WINDOW: Final[Table] = (
    ("key_id", _LC),
    ("window_start", _SECOND),
    ("part", "String"),
    ("version", "UInt64"),
    *_COUNTS,
    ("latency_sum_ms", "Float64"),  # of all requests: over `requests` it is the mean
    ("latency_max_ms", "Float32"),  # of the slowest
    ("latency_counts", "Array(UInt32)"),  # LATENCY_BOUNDS_MS, last one is "above"
    ("addresses", "UInt32"),  # distinct, linear counting over 256 bits: about 3 % off up to 300
    ("countries", "UInt32"),  # distinct, as addresses
    ("routes", "UInt32"),  # distinct, as addresses
    ("first_ts", _TS),
    ("last_ts", _TS),
    ("top_bits", "Float32"),  # of the most surprising finding
    ("top_detector", _LC),  # whose it was
)
"""`requests_1m` and `requests_1h`."""

LATENCY_BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)

KEY_SOURCE_1H: Final[Table] = (
    ("key_id", _LC),
    ("window_start", _SECOND),
    ("prefix", "String"),  # /24 or /48; "" beyond 2,000 rows of the key's hour, asn and country with it
    ("asn", "UInt32"),
    ("country", _LC),
    ("client", _LC),  # as route
    ("route", _LC),  # "" also of who did not hold the key, and of all that came beyond 1,000 rows of the key's hour
    ("outcome", _LC),
    ("part", "String"),
    ("version", "UInt64"),
    *_COUNTS,
    ("first_ts", _TS),
    ("last_ts", _TS),
)

KEYS_LAST_USED: Final[Table] = (
    ("key_id", _LC),
    ("last_used", _TS),  # when its holder did; refused requests in its name are no use
    ("first_used", _TS),  # when he did first
    ("client_ip", "IPv6"),
    ("country", _LC),
    ("asn", "UInt32"),
    ("environment", _LC),
    ("version", "UInt64"),  # last_used in us, times 4,096, and which of the events at that time it is: the newest wins
)

FINDINGS: Final[Table] = (
    ("finding_id", "String"),  # hash of key, detector and event
    ("incident_id", "String"),  # "" while silent
    ("key_id", _LC),
    ("at", _TS),
    ("detector", _LC),
    ("family", _LC),
    ("bits", "Float64"),
    ("observed", "Float64"),
    ("low", "Float64"),  # of what is expected: 5 of 100 are below
    ("median", "Float64"),  # half are below
    ("high", "Float64"),  # 5 of 100 are above
    ("text", "String"),
    ("sample", "String"),  # JSON of schemas.incident.Sample
    ("epoch", _LC),
    ("partition", "UInt16"),
    ("version", "UInt64"),
)

INCIDENTS: Final[Table] = (
    ("incident_id", "String"),
    ("key_id", _LC),
    ("rule", _LC),
    ("revision", "UInt32"),
    ("state", _LC),
    ("severity", _LC),
    ("opened_at", _TS),
    ("last_at", _TS),
    ("closed_at", "Nullable(DateTime64(6, 'UTC'))"),
    ("bits", "Float64"),
    ("return_period_days", "Float64"),
    ("text", "String"),
    ("rung", _LC),
    ("environment", _LC),
    ("owner", _LC),
    ("role", _LC),
    ("events", "UInt64"),
    ("detectors", "Array(LowCardinality(String))"),
    ("body", "String"),  # JSON of the whole schemas.incident.Incident
    ("version", "UInt64"),  # revision
)

EVIDENCE: Final[Table] = (("incident_id", "String"), *REQUESTS)
"""The events of an incident, copied: they outlive `requests`."""

RESPONSES: Final[Table] = (
    ("response_id", "String"),
    ("incident_id", "String"),
    ("revision", "UInt32"),
    ("key_id", _LC),
    ("at", _TS),
    ("stage", _LC),
    ("verdict", _LC),
    ("rung", _LC),
    ("reason", "String"),
    ("body", "String"),  # JSON of the whole schemas.response.Response
    ("partition", "UInt16"),
    ("offset", "UInt64"),  # position on api.responses: the identity of the line
)

ADOPTIONS: Final[Table] = (
    ("topic", _LC),  # whose offsets these are
    ("epoch", _LC),
    ("partition", "UInt16"),
    ("offset", "Int64"),  # first offset judged with these versions
    ("input", _LC),  # catalogue | config | controls | geo
    ("version_id", "String"),  # what was adopted
    ("version", "UInt64"),
)

CONTROLS: Final[Table] = (
    ("control_id", "String"),
    ("seq", "UInt64"),  # place on the control topic
    ("kind", _LC),  # feedback | mute | planned
    ("key_id", "String"),
    ("incident_id", "String"),
    ("verdict", _LC),
    ("detectors", "Array(LowCardinality(String))"),
    ("by", _LC),
    ("reason", "String"),
    ("at", _TS),
    ("until", "Nullable(DateTime64(6, 'UTC'))"),  # when it ends; null is never
    ("body", "String"),  # JSON of the whole schemas.control.Control
    ("version", "UInt64"),
)

APPLIED: Final[Table] = (
    ("control_id", "String"),
    ("seq", "UInt64"),  # as in `controls`
    ("key_id", "String"),
    ("incident_id", "String"),
    ("verdict", _LC),
    ("at", _TS),  # the partition's watermark
    ("effect", "String"),  # in words
    ("partition", "UInt16"),
    ("offset", "UInt64"),  # first offset judged with it
    ("version", "UInt64"),
)

WITHHELD: Final[Table] = (
    ("withheld_id", "String"),  # hash of key, rule, change, time and offset
    ("control_id", "String"),
    ("key_id", _LC),
    ("at", _TS),
    ("rule", _LC),
    ("change", _LC),
    ("severity", _LC),
    ("bits", "Float64"),
    ("return_period_days", "Float64"),
    ("detectors", "Array(LowCardinality(String))"),
    ("text", "String"),
    ("reason", "String"),
    ("by", _LC),
    ("partition", "UInt16"),
    ("version", "UInt64"),
)

EVICTIONS: Final[Table] = (
    ("key_id", "String"),
    ("at", _TS),  # the partition's watermark
    ("last_used", _TS),  # until when it had been used
    ("partition", "UInt16"),
    ("version", "UInt64"),  # last_used in us
)

LEAKS: Final[Table] = (
    ("leak_id", "String"),  # hash of the secret's keyed hash, or the key id, and the place
    ("key_id", "String"),  # "": matches no key
    ("at", _TS),
    ("feed", _LC),  # github | manual
    ("kind", _LC),  # the feed's name for such secrets
    ("url", "String"),  # where the secret was seen
    ("source", _LC),  # content, commit, pull_request, ...
    ("hash", "String"),  # keyed, of the secret; "" where a key was named
    ("outcome", _LC),  # matched | unmatched
    ("incident_id", "String"),
    ("reason", "String"),
    ("version", "UInt64"),  # matched ones above others, the earlier above the later
)

CONSOLE_LOG: Final[Table] = (
    ("at", _TS),
    ("person", _LC),  # who signed in
    ("role", _LC),  # viewer | responder | admin
    ("method", _LC),  # of the request
    ("path", "String"),  # of the page
    ("status", "UInt16"),  # of the answer
    ("address", "String"),  # of the browser or proxy
    ("detail", "String"),  # what was done, in words
)

KEYS: Final[Table] = (
    ("key_id", _LC),
    ("environment", _LC),
    ("owner", _LC),
    ("role", _LC),
    ("status", _LC),
    ("ended_at", "Nullable(DateTime64(6, 'UTC'))"),
    ("criticality", _LC),
    ("exposure", _LC),
    ("protected", "UInt8"),
    ("decoy", "UInt8"),
    ("created_at", "Nullable(DateTime64(6, 'UTC'))"),
    ("last_rotated_at", "Nullable(DateTime64(6, 'UTC'))"),
    ("rotated_from", "String"),
    ("rotated_to", "String"),
    ("leaked_at", "Nullable(DateTime64(6, 'UTC'))"),
    ("gone", "UInt8"),  # 1: its declaration was taken back
    ("version", "UInt64"),  # when it was read, in us
)
"""What is declared of each key (`schemas.key.Key`), without its secret's hash."""

COPIES: Final = ("hours", "places", "days", "place_days")
"""Tables that ClickHouse itself fills from `requests_1h` and `key_source_1h`: a row for a row in the order of time, and
each hour the sums of past days."""

TABLES: Final[dict[str, Table]] = {
    "requests": REQUESTS,
    "requests_1m": WINDOW,
    "requests_1h": WINDOW,
    "key_source_1h": KEY_SOURCE_1H,
    "keys_last_used": KEYS_LAST_USED,
    "findings": FINDINGS,
    "incidents": INCIDENTS,
    "evidence": EVIDENCE,
    "responses": RESPONSES,
    "adoptions": ADOPTIONS,
    "controls": CONTROLS,
    "applied": APPLIED,
    "withheld": WITHHELD,
    "evictions": EVICTIONS,
    "leaks": LEAKS,
    "console_log": CONSOLE_LOG,
    "keys": KEYS,
}
