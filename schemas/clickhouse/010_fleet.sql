-- What is declared of each key, as the responder last read it from api.keys: what fleet pages choose and count keys by.
-- A key that was taken back keeps its row with `gone` set.
CREATE TABLE IF NOT EXISTS keys
(
    key_id LowCardinality(String),
    environment LowCardinality(String),
    owner LowCardinality(String),
    role LowCardinality(String),
    status LowCardinality(String),
    criticality LowCardinality(String),
    exposure LowCardinality(String),
    protected UInt8,
    decoy UInt8,
    created_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    last_rotated_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    rotated_from String CODEC(ZSTD(1)),
    rotated_to String CODEC(ZSTD(1)),
    leaked_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    gone UInt8,
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key_id;

CREATE VIEW IF NOT EXISTS v_keys AS SELECT * FROM keys FINAL WHERE gone = 0;

-- `requests_1h` in the order of time, one row for each row of it, so that a newer version replaces here as it does there:
-- the key's own order makes "all keys, this day" read everything. A day is a partition, so closed days are one part each.
CREATE TABLE IF NOT EXISTS hours
(
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    key_id LowCardinality(String),
    part String CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1)),
    refused UInt64 CODEC(T64, ZSTD(1)),
    failed UInt64 CODEC(T64, ZSTD(1)),
    other_4xx UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMMDD(window_start)
ORDER BY (window_start, key_id, part)
TTL window_start + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS to_hours TO hours AS
SELECT
    window_start, key_id, part, version, requests, errors_401 + errors_403 + errors_429 AS refused,
    errors_5xx AS failed, errors_404 + errors_4xx AS other_4xx
FROM requests_1h;

INSERT INTO hours
SELECT
    window_start, key_id, part, version, requests, errors_401 + errors_403 + errors_429, errors_5xx, errors_404 + errors_4xx
FROM requests_1h FINAL
SETTINGS throw_on_max_partitions_per_insert_block = 0;

-- `key_source_1h` likewise, for the map; `id` stands for what else tells its rows apart.
CREATE TABLE IF NOT EXISTS places
(
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    country LowCardinality(String),
    key_id LowCardinality(String),
    id UInt64 CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMMDD(window_start)
ORDER BY (window_start, country, key_id, id)
TTL window_start + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS to_places TO places AS
SELECT
    window_start, country, key_id, cityHash64(prefix, asn, client, route, outcome, part) AS id, version, requests
FROM key_source_1h;

INSERT INTO places
SELECT window_start, country, key_id, cityHash64(prefix, asn, client, route, outcome, part), version, requests
FROM key_source_1h FINAL
SETTINGS throw_on_max_partitions_per_insert_block = 0;

CREATE VIEW IF NOT EXISTS v_hours AS SELECT * FROM hours FINAL;

CREATE VIEW IF NOT EXISTS v_places AS SELECT * FROM places FINAL;
