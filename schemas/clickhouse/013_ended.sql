-- Since when a key is revoked or expired, as its declaration says; NULL where it doesn't.
ALTER TABLE keys ADD COLUMN IF NOT EXISTS ended_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)) AFTER status;
