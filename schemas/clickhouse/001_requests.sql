-- One row per request, without its query string. Its position in the log is its identity, so a replay writes it again
-- without doubling it. The projection is the second ordering: "who else came from this network, and when".
CREATE TABLE IF NOT EXISTS requests
(
    key_id LowCardinality(String),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    method LowCardinality(String),
    route LowCardinality(String),
    path String CODEC(ZSTD(1)),
    status UInt16 CODEC(T64, ZSTD(1)),
    outcome LowCardinality(String),
    client_ip IPv6 CODEC(ZSTD(1)),
    country LowCardinality(String),
    asn UInt32 CODEC(ZSTD(1)),
    client LowCardinality(String),
    user_agent String CODEC(ZSTD(1)),
    latency_ms Float32 CODEC(ZSTD(1)),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    environment LowCardinality(String),
    scope LowCardinality(String),
    late UInt8 CODEC(ZSTD(1)),
    one_in UInt16 CODEC(ZSTD(1)),
    epoch LowCardinality(String),
    partition UInt16 CODEC(ZSTD(1)),
    offset UInt64 CODEC(Delta, ZSTD(1)),
    PROJECTION by_network
    (
        SELECT
            asn, ts, key_id, client_ip, country, client, method, route, status, outcome, environment, request_id,
            one_in, epoch, partition, offset
        ORDER BY asn, ts
    )
)
ENGINE = ReplacingMergeTree(offset)
PARTITION BY toDate(ts)
ORDER BY (key_id, ts, epoch, partition, offset)
TTL toDateTime(ts) + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, deduplicate_merge_projection_mode = 'rebuild';

-- The events of an incident, copied: they outlive `requests`.
CREATE TABLE IF NOT EXISTS evidence
(
    incident_id String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    method LowCardinality(String),
    route LowCardinality(String),
    path String CODEC(ZSTD(1)),
    status UInt16 CODEC(T64, ZSTD(1)),
    outcome LowCardinality(String),
    client_ip IPv6 CODEC(ZSTD(1)),
    country LowCardinality(String),
    asn UInt32 CODEC(ZSTD(1)),
    client LowCardinality(String),
    user_agent String CODEC(ZSTD(1)),
    latency_ms Float32 CODEC(ZSTD(1)),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    environment LowCardinality(String),
    scope LowCardinality(String),
    late UInt8 CODEC(ZSTD(1)),
    one_in UInt16 CODEC(ZSTD(1)),
    epoch LowCardinality(String),
    partition UInt16 CODEC(ZSTD(1)),
    offset UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(offset)
PARTITION BY toYYYYMM(ts)
ORDER BY (incident_id, ts, epoch, partition, offset)
TTL toDateTime(ts) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 2048;
