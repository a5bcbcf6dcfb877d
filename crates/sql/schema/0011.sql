-- Devices that asked and are not registered: the most recent ones, and the number of requests in each hour. Both are bounded.
CREATE TABLE unknown_devices (
  id NAME NOT NULL PRIMARY KEY,
  -- The door and the network address of the last request.
  door NAME NOT NULL,
  source NAME,
  first_at BIGINT NOT NULL,
  last_at BIGINT NOT NULL,
  attempts BIGINT NOT NULL
) OPTIONS;
-- Hours are counted from 1970-01-01T00:00:00Z.
CREATE TABLE unknown_hours (
  hour_number BIGINT NOT NULL PRIMARY KEY,
  attempts BIGINT NOT NULL,
  -- Devices that were dropped from the list because it was full.
  evicted BIGINT NOT NULL
) OPTIONS;
-- The row that a server locks before it changes them.
REPLACE INTO meta (name, value) VALUES ('unknown-devices', 0);
