-- By which rule the hash of an entry is made: 1 covers its document alone, 2 every column that decides what is shown.
ALTER TABLE entries ADD COLUMN rule BIGINT NOT NULL DEFAULT 1;
