-- `keywatch hunt`: who came from this network, by this client, on this route? The sort key begins with the key, so these
-- filters say which granules can't hold it. A stranger's value stands in few granules, which is whom one hunts.
ALTER TABLE key_source_1h ADD INDEX IF NOT EXISTS by_prefix prefix TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE key_source_1h ADD INDEX IF NOT EXISTS by_asn asn TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE key_source_1h ADD INDEX IF NOT EXISTS by_client client TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE key_source_1h ADD INDEX IF NOT EXISTS by_route route TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE requests ADD INDEX IF NOT EXISTS by_address client_ip TYPE bloom_filter(0.01) GRANULARITY 1;

-- What was reported as public: one row per secret and place, the first report; a later one that finds its key replaces it.
CREATE TABLE IF NOT EXISTS leaks
(
    leak_id String CODEC(ZSTD(1)),
    key_id String CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    feed LowCardinality(String),
    kind LowCardinality(String),
    url String CODEC(ZSTD(1)),
    source LowCardinality(String),
    hash String CODEC(ZSTD(1)),
    outcome LowCardinality(String),
    incident_id String CODEC(ZSTD(1)),
    reason String CODEC(ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY leak_id;

CREATE VIEW IF NOT EXISTS v_leaks AS SELECT * FROM leaks FINAL;
