-- Refused requests in a key's name were taken for its use. What `key_source_1h` knows of the last 400 days puts right:
-- a later row would anyway, but a key that nobody uses any more has none. An hour of difference is what a worker at work
-- may not have written yet. A key that was only ever refused keeps its row.
INSERT INTO keys_last_used
SELECT u.key_id, h.last, if(u.first_used >= s.since, h.first, u.first_used), '::', h.country, h.asn, u.environment, u.version + 1
FROM (SELECT * FROM keys_last_used FINAL) AS u
INNER JOIN (
    SELECT key_id, max(w.last_ts) AS last, min(w.first_ts) AS first, argMax(w.country, w.last_ts) AS country,
        argMax(w.asn, w.last_ts) AS asn
    FROM key_source_1h AS w FINAL WHERE outcome NOT IN ('invalid', 'expired', 'disabled') GROUP BY key_id
) AS h ON h.key_id = u.key_id
CROSS JOIN (SELECT min(window_start) AS since FROM key_source_1h) AS s
WHERE u.last_used > h.last + INTERVAL 1 HOUR;
