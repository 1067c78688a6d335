-- Who looked at what in the console, and what they did: written by the console, one row a request.
CREATE TABLE IF NOT EXISTS console_log
(
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    person LowCardinality(String),
    role LowCardinality(String),
    method LowCardinality(String),
    path String CODEC(ZSTD(1)),
    status UInt16 CODEC(T64, ZSTD(1)),
    address String CODEC(ZSTD(1)),
    detail String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, person, method, path)
TTL toDateTime(at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;
