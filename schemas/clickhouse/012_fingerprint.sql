-- JA4 or JA3 of the caller's TLS client, beside the user agent that it sent; kept as long as the row.
ALTER TABLE requests ADD COLUMN IF NOT EXISTS fingerprint String CODEC(ZSTD(1)) AFTER user_agent;

ALTER TABLE evidence ADD COLUMN IF NOT EXISTS fingerprint String CODEC(ZSTD(1)) AFTER user_agent;
