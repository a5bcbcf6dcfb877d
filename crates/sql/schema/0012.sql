-- The first entries of a chain that were removed because they were old: their number, and the hash of the last of them.
ALTER TABLE chains ADD COLUMN removed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE chains ADD COLUMN removed_hash NAME;
-- The number of the first entry that was not removed.
REPLACE INTO meta (name, value) VALUES ('trail-begins', 0);
