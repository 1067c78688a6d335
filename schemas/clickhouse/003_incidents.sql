-- Every finding, silent ones too; a later version names the incident that it became part of.
CREATE TABLE IF NOT EXISTS findings
(
    finding_id String CODEC(ZSTD(1)),
    incident_id String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    detector LowCardinality(String),
    family LowCardinality(String),
    bits Float64 CODEC(ZSTD(1)),
    observed Float64 CODEC(ZSTD(1)),
    low Float64 CODEC(ZSTD(1)),
    median Float64 CODEC(ZSTD(1)),
    high Float64 CODEC(ZSTD(1)),
    text String CODEC(ZSTD(1)),
    sample String CODEC(ZSTD(1)),
    epoch LowCardinality(String),
    partition UInt16 CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(at)
ORDER BY (key_id, at, finding_id)
TTL toDateTime(at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 2048;

-- One row per incident at its newest revision. It is partitioned by its opening, which never changes.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    rule LowCardinality(String),
    revision UInt32 CODEC(ZSTD(1)),
    state LowCardinality(String),
    severity LowCardinality(String),
    opened_at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    last_at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    closed_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    bits Float64 CODEC(ZSTD(1)),
    return_period_days Float64 CODEC(ZSTD(1)),
    text String CODEC(ZSTD(1)),
    rung LowCardinality(String),
    environment LowCardinality(String),
    owner LowCardinality(String),
    role LowCardinality(String),
    events UInt64 CODEC(T64, ZSTD(1)),
    detectors Array(LowCardinality(String)) CODEC(ZSTD(1)),
    body String CODEC(ZSTD(3)),
    version UInt64 CODEC(ZSTD(1)),
    INDEX by_key key_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(opened_at)
ORDER BY incident_id
TTL toDateTime(opened_at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024;

-- The audit log: append-only, no TTL. The position on api.responses is in the key, so that loading the topic again adds
-- nothing, and time and id are, too, so that a topic made anew never overwrites a line.
CREATE TABLE IF NOT EXISTS responses
(
    response_id String CODEC(ZSTD(1)),
    incident_id String CODEC(ZSTD(1)),
    revision UInt32 CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stage LowCardinality(String),
    verdict LowCardinality(String),
    rung LowCardinality(String),
    reason String CODEC(ZSTD(1)),
    body String CODEC(ZSTD(3)),
    partition UInt16 CODEC(ZSTD(1)),
    offset UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (key_id, at, response_id, stage, partition, offset)
SETTINGS index_granularity = 2048;

-- From which offset on which versions of the side inputs judged: what `replay --topic` needs to do the same again.
CREATE TABLE IF NOT EXISTS adoptions
(
    topic LowCardinality(String),
    epoch LowCardinality(String),
    partition UInt16 CODEC(ZSTD(1)),
    offset Int64 CODEC(ZSTD(1)),
    input LowCardinality(String),
    version_id String CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, epoch, partition, input, offset);
