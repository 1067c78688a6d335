-- `hours` and `places` by the day, for questions over weeks. ClickHouse itself counts them anew each hour: every past day
-- of which a part has been written since the last time (and a day before it), so whatever comes late, twice or from a
-- replay ends in the right sum, and the newest count of a day and key replaces the older. Today is not in them.
CREATE TABLE IF NOT EXISTS days
(
    day Date CODEC(DoubleDelta, ZSTD(1)),
    key_id LowCardinality(String),
    requests UInt64 CODEC(T64, ZSTD(1)),
    refused UInt64 CODEC(T64, ZSTD(1)),
    failed UInt64 CODEC(T64, ZSTD(1)),
    other_4xx UInt64 CODEC(T64, ZSTD(1)),
    made_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(made_at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, key_id)
TTL day + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

INSERT INTO days
SELECT
    toDate(window_start) AS day, key_id, sum(requests), sum(refused), sum(failed), sum(other_4xx), now64(3, 'UTC')
FROM hours FINAL
WHERE window_start < toStartOfDay(now('UTC'))
GROUP BY day, key_id
SETTINGS throw_on_max_partitions_per_insert_block = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS to_days REFRESH EVERY 1 HOUR APPEND TO days EMPTY AS
SELECT
    toDate(window_start) AS day, key_id, sum(requests) AS requests, sum(refused) AS refused, sum(failed) AS failed,
    sum(other_4xx) AS other_4xx, now64(3, 'UTC') AS made_at
FROM hours FINAL
WHERE window_start < toStartOfDay(now('UTC')) AND toYYYYMMDD(window_start) IN (
    SELECT toUInt32(partition) FROM system.parts
    WHERE database = currentDatabase() AND table = 'hours' AND active
        AND modification_time >= (SELECT max(made_at) FROM days) - toIntervalDay(1)
)
GROUP BY day, key_id;

-- `places` likewise, by country.
CREATE TABLE IF NOT EXISTS place_days
(
    day Date CODEC(DoubleDelta, ZSTD(1)),
    country LowCardinality(String),
    key_id LowCardinality(String),
    requests UInt64 CODEC(T64, ZSTD(1)),
    made_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(made_at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, country, key_id)
TTL day + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

INSERT INTO place_days
SELECT toDate(window_start) AS day, country, key_id, sum(requests), now64(3, 'UTC')
FROM places FINAL
WHERE window_start < toStartOfDay(now('UTC'))
GROUP BY day, country, key_id
SETTINGS throw_on_max_partitions_per_insert_block = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS to_place_days REFRESH EVERY 1 HOUR APPEND TO place_days EMPTY AS
SELECT toDate(window_start) AS day, country, key_id, sum(requests) AS requests, now64(3, 'UTC') AS made_at
FROM places FINAL
WHERE window_start < toStartOfDay(now('UTC')) AND toYYYYMMDD(window_start) IN (
    SELECT toUInt32(partition) FROM system.parts
    WHERE database = currentDatabase() AND table = 'places' AND active
        AND modification_time >= (SELECT max(made_at) FROM place_days) - toIntervalDay(1)
)
GROUP BY day, country, key_id;

CREATE VIEW IF NOT EXISTS v_days AS SELECT * FROM days FINAL;

CREATE VIEW IF NOT EXISTS v_place_days AS SELECT * FROM place_days FINAL;
