-- What people told Keywatch, as it stands on the control topic: feedback, mutes, planned events. For ever.
CREATE TABLE IF NOT EXISTS controls
(
    control_id String CODEC(ZSTD(1)),
    seq UInt64 CODEC(ZSTD(1)),
    kind LowCardinality(String),
    key_id String CODEC(ZSTD(1)),
    incident_id String CODEC(ZSTD(1)),
    verdict LowCardinality(String),
    detectors Array(LowCardinality(String)) CODEC(ZSTD(1)),
    by LowCardinality(String),
    reason String CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    until Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    body String CODEC(ZSTD(3)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (control_id, seq);

-- What a feedback changed in a key's state, and before which offset.
CREATE TABLE IF NOT EXISTS applied
(
    control_id String CODEC(ZSTD(1)),
    seq UInt64 CODEC(ZSTD(1)),
    key_id String CODEC(ZSTD(1)),
    incident_id String CODEC(ZSTD(1)),
    verdict LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    effect String CODEC(ZSTD(1)),
    partition UInt16 CODEC(ZSTD(1)),
    offset UInt64 CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (control_id, seq, partition);

-- Incidents that were found and not told, each message with the word that withheld it.
CREATE TABLE IF NOT EXISTS withheld
(
    withheld_id String CODEC(ZSTD(1)),
    control_id String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    rule LowCardinality(String),
    change LowCardinality(String),
    severity LowCardinality(String),
    bits Float64 CODEC(ZSTD(1)),
    return_period_days Float64 CODEC(ZSTD(1)),
    detectors Array(LowCardinality(String)) CODEC(ZSTD(1)),
    text String CODEC(ZSTD(1)),
    reason String CODEC(ZSTD(1)),
    by LowCardinality(String),
    partition UInt16 CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(at)
ORDER BY (key_id, at, withheld_id)
TTL toDateTime(at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

-- Keys whose state was given up to make room: when last, and until when they had been used.
CREATE TABLE IF NOT EXISTS evictions
(
    key_id String CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    last_used DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    partition UInt16 CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key_id
TTL toDateTime(at) + INTERVAL 400 DAY;

CREATE VIEW IF NOT EXISTS v_controls AS SELECT * FROM controls FINAL;

CREATE VIEW IF NOT EXISTS v_applied AS SELECT * FROM applied FINAL;

CREATE VIEW IF NOT EXISTS v_withheld AS SELECT * FROM withheld FINAL;

CREATE VIEW IF NOT EXISTS v_evictions AS SELECT * FROM evictions FINAL;
