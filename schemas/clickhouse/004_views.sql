-- What readers use: the newest version of every part, summed over parts. Distinct counts can't be summed, so the largest
-- part stands for all (parts appear only after an eviction or in a topic made anew).
CREATE VIEW IF NOT EXISTS v_requests_1m AS
SELECT
    w.key_id AS key_id,
    w.window_start AS window_start,
    sum(w.requests) AS requests,
    sum(w.errors_401) AS errors_401,
    sum(w.errors_403) AS errors_403,
    sum(w.errors_404) AS errors_404,
    sum(w.errors_429) AS errors_429,
    sum(w.errors_4xx) AS errors_4xx,
    sum(w.errors_5xx) AS errors_5xx,
    sum(w.bytes_in) AS bytes_in,
    sum(w.bytes_out) AS bytes_out,
    sum(w.latency_sum_ms) AS latency_sum_ms,
    max(w.latency_max_ms) AS latency_max_ms,
    sumForEach(w.latency_counts) AS latency_counts,
    max(w.addresses) AS addresses,
    max(w.countries) AS countries,
    max(w.routes) AS routes,
    min(w.first_ts) AS first_ts,
    max(w.last_ts) AS last_ts,
    max(w.top_bits) AS top_bits,
    argMax(w.top_detector, w.top_bits) AS top_detector
FROM requests_1m AS w FINAL
GROUP BY w.key_id, w.window_start;

CREATE VIEW IF NOT EXISTS v_requests_1h AS
SELECT
    w.key_id AS key_id,
    w.window_start AS window_start,
    sum(w.requests) AS requests,
    sum(w.errors_401) AS errors_401,
    sum(w.errors_403) AS errors_403,
    sum(w.errors_404) AS errors_404,
    sum(w.errors_429) AS errors_429,
    sum(w.errors_4xx) AS errors_4xx,
    sum(w.errors_5xx) AS errors_5xx,
    sum(w.bytes_in) AS bytes_in,
    sum(w.bytes_out) AS bytes_out,
    sum(w.latency_sum_ms) AS latency_sum_ms,
    max(w.latency_max_ms) AS latency_max_ms,
    sumForEach(w.latency_counts) AS latency_counts,
    max(w.addresses) AS addresses,
    max(w.countries) AS countries,
    max(w.routes) AS routes,
    min(w.first_ts) AS first_ts,
    max(w.last_ts) AS last_ts,
    max(w.top_bits) AS top_bits,
    argMax(w.top_detector, w.top_bits) AS top_detector
FROM requests_1h AS w FINAL
GROUP BY w.key_id, w.window_start;

CREATE VIEW IF NOT EXISTS v_key_source_1h AS
SELECT
    w.key_id AS key_id,
    w.window_start AS window_start,
    w.prefix AS prefix,
    w.asn AS asn,
    w.country AS country,
    w.client AS client,
    w.route AS route,
    w.outcome AS outcome,
    sum(w.requests) AS requests,
    sum(w.errors_401) AS errors_401,
    sum(w.errors_403) AS errors_403,
    sum(w.errors_404) AS errors_404,
    sum(w.errors_429) AS errors_429,
    sum(w.errors_4xx) AS errors_4xx,
    sum(w.errors_5xx) AS errors_5xx,
    sum(w.bytes_in) AS bytes_in,
    sum(w.bytes_out) AS bytes_out,
    min(w.first_ts) AS first_ts,
    max(w.last_ts) AS last_ts
FROM key_source_1h AS w FINAL
GROUP BY w.key_id, w.window_start, w.prefix, w.asn, w.country, w.client, w.route, w.outcome;

CREATE VIEW IF NOT EXISTS v_requests AS SELECT * FROM requests FINAL;

CREATE VIEW IF NOT EXISTS v_evidence AS SELECT * FROM evidence FINAL;

CREATE VIEW IF NOT EXISTS v_keys_last_used AS SELECT * FROM keys_last_used FINAL;

CREATE VIEW IF NOT EXISTS v_findings AS SELECT * FROM findings FINAL;

CREATE VIEW IF NOT EXISTS v_incidents AS SELECT * FROM incidents FINAL;

CREATE VIEW IF NOT EXISTS v_responses AS SELECT * FROM responses FINAL;

CREATE VIEW IF NOT EXISTS v_adoptions AS SELECT * FROM adoptions FINAL;

