-- Full values per key and window: the newest version of a part wins, readers sum over parts (see the views).
CREATE TABLE IF NOT EXISTS requests_1m
(
    key_id LowCardinality(String),
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    part String CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1)),
    errors_401 UInt64 CODEC(T64, ZSTD(1)),
    errors_403 UInt64 CODEC(T64, ZSTD(1)),
    errors_404 UInt64 CODEC(T64, ZSTD(1)),
    errors_429 UInt64 CODEC(T64, ZSTD(1)),
    errors_4xx UInt64 CODEC(T64, ZSTD(1)),
    errors_5xx UInt64 CODEC(T64, ZSTD(1)),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    latency_sum_ms Float64 CODEC(ZSTD(1)),
    latency_max_ms Float32 CODEC(ZSTD(1)),
    latency_counts Array(UInt32) CODEC(ZSTD(1)),
    addresses UInt32 CODEC(T64, ZSTD(1)),
    countries UInt32 CODEC(T64, ZSTD(1)),
    routes UInt32 CODEC(T64, ZSTD(1)),
    first_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    last_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    top_bits Float32 CODEC(ZSTD(1)),
    top_detector LowCardinality(String)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMMDD(window_start)
ORDER BY (key_id, window_start, part)
TTL window_start + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 2048;

CREATE TABLE IF NOT EXISTS requests_1h
(
    key_id LowCardinality(String),
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    part String CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1)),
    errors_401 UInt64 CODEC(T64, ZSTD(1)),
    errors_403 UInt64 CODEC(T64, ZSTD(1)),
    errors_404 UInt64 CODEC(T64, ZSTD(1)),
    errors_429 UInt64 CODEC(T64, ZSTD(1)),
    errors_4xx UInt64 CODEC(T64, ZSTD(1)),
    errors_5xx UInt64 CODEC(T64, ZSTD(1)),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    latency_sum_ms Float64 CODEC(ZSTD(1)),
    latency_max_ms Float32 CODEC(ZSTD(1)),
    latency_counts Array(UInt32) CODEC(ZSTD(1)),
    addresses UInt32 CODEC(T64, ZSTD(1)),
    countries UInt32 CODEC(T64, ZSTD(1)),
    routes UInt32 CODEC(T64, ZSTD(1)),
    first_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    last_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    top_bits Float32 CODEC(ZSTD(1)),
    top_detector LowCardinality(String)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (key_id, window_start, part)
TTL window_start + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 2048;

-- What a key is used for and from where, by hour: the long memory behind "never seen for this key".
CREATE TABLE IF NOT EXISTS key_source_1h
(
    key_id LowCardinality(String),
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    prefix String CODEC(ZSTD(1)),
    asn UInt32 CODEC(ZSTD(1)),
    country LowCardinality(String),
    client LowCardinality(String),
    route LowCardinality(String),
    outcome LowCardinality(String),
    part String CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1)),
    errors_401 UInt64 CODEC(T64, ZSTD(1)),
    errors_403 UInt64 CODEC(T64, ZSTD(1)),
    errors_404 UInt64 CODEC(T64, ZSTD(1)),
    errors_429 UInt64 CODEC(T64, ZSTD(1)),
    errors_4xx UInt64 CODEC(T64, ZSTD(1)),
    errors_5xx UInt64 CODEC(T64, ZSTD(1)),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    first_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    last_ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (key_id, window_start, prefix, asn, country, client, route, outcome, part)
TTL window_start + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 2048;

-- One row per key, kept for five years: a key nobody has used for a year is exactly what its owner asks for.
CREATE TABLE IF NOT EXISTS keys_last_used
(
    key_id LowCardinality(String),
    last_used DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    first_used DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    client_ip IPv6 CODEC(ZSTD(1)),
    country LowCardinality(String),
    asn UInt32 CODEC(ZSTD(1)),
    environment LowCardinality(String),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key_id
TTL toDateTime(last_used) + INTERVAL 1830 DAY;
