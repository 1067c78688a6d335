-- `hours` and `places` by the day, for questions over weeks. ClickHouse itself counts them anew each hour: every past day
-- of which a part has been written since a count last said something new (and a day before it), so whatever comes late,
-- twice or from a replay ends in the right sum. Only what has changed is written, and the newest count of a day and key
-- replaces the older: of rows that lie twice in many parts FINAL takes ten times as long. Today is not in them.
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
WITH written AS (
    SELECT toUInt32(partition) AS day FROM system.parts
    WHERE database = currentDatabase() AND table = 'hours' AND active
        AND modification_time >= (SELECT max(made_at) FROM days) - toIntervalDay(1)
)
SELECT
    toDate(h.window_start) AS day, h.key_id AS key_id, sum(h.requests) AS requests, sum(h.refused) AS refused,
    sum(h.failed) AS failed, sum(h.other_4xx) AS other_4xx, now64(3, 'UTC') AS made_at
FROM hours AS h FINAL
WHERE h.window_start < toStartOfDay(now('UTC')) AND toYYYYMMDD(h.window_start) IN (SELECT day FROM written)
GROUP BY day, key_id
HAVING (day, key_id, requests, refused, failed, other_4xx) NOT IN (
    SELECT d.day, d.key_id, d.requests, d.refused, d.failed, d.other_4xx
    FROM days AS d FINAL WHERE toYYYYMMDD(d.day) IN (SELECT day FROM written)
);

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
WITH written AS (
    SELECT toUInt32(partition) AS day FROM system.parts
    WHERE database = currentDatabase() AND table = 'places' AND active
        AND modification_time >= (SELECT max(made_at) FROM place_days) - toIntervalDay(1)
)
SELECT
    toDate(p.window_start) AS day, p.country AS country, p.key_id AS key_id, sum(p.requests) AS requests,
    now64(3, 'UTC') AS made_at
FROM places AS p FINAL
WHERE p.window_start < toStartOfDay(now('UTC')) AND toYYYYMMDD(p.window_start) IN (SELECT day FROM written)
GROUP BY day, country, key_id
HAVING (day, country, key_id, requests) NOT IN (
    SELECT d.day, d.country, d.key_id, d.requests FROM place_days AS d FINAL WHERE toYYYYMMDD(d.day) IN (SELECT day FROM written)
);

CREATE VIEW IF NOT EXISTS v_days AS SELECT * FROM days FINAL;

CREATE VIEW IF NOT EXISTS v_place_days AS SELECT * FROM place_days FINAL;
