-- On SQLite a vend changes one page that nobody else is at, the device's, and the ends of what only grows. So what it would
-- have to write elsewhere for each device hangs on the device, or is left out where it can be had in another way.
--
-- The two states that a vend leaves and enters are most devices': a list of them is a walk along the devices.
ON SQLITE DROP INDEX devices_in_state;
ON SQLITE CREATE INDEX devices_in_rare_state ON devices (state, id) WHERE state NOT IN ('registered', 'provisioned');
-- How many devices there are. Servers that share a database would wait for each other here, and count them when asked.
ON SQLITE CREATE TABLE device_counts (
  state NAME NOT NULL,
  enabled BIGINT NOT NULL,
  devices BIGINT NOT NULL,
  PRIMARY KEY (state, enabled)
) OPTIONS, WITHOUT ROWID;
ON SQLITE INSERT INTO device_counts SELECT state, enabled, COUNT(*) FROM devices GROUP BY state, enabled;
ON SQLITE CREATE TRIGGER device_added AFTER INSERT ON devices BEGIN
  INSERT INTO device_counts VALUES (new.state, new.enabled, 1) ON CONFLICT DO UPDATE SET devices = devices + 1; END;
ON SQLITE CREATE TRIGGER device_deleted AFTER DELETE ON devices BEGIN
  UPDATE device_counts SET devices = devices - 1 WHERE state = old.state AND enabled = old.enabled; END;
ON SQLITE CREATE TRIGGER device_changed AFTER UPDATE OF state, enabled ON devices
WHEN (old.state, old.enabled) <> (new.state, new.enabled) BEGIN
  UPDATE device_counts SET devices = devices - 1 WHERE state = old.state AND enabled = old.enabled;
  INSERT INTO device_counts VALUES (new.state, new.enabled, 1) ON CONFLICT DO UPDATE SET devices = devices + 1; END;
-- With the rights of whoever asks, so that a copy of the database does not need the user who made it.
ON MYSQL CREATE SQL SECURITY INVOKER VIEW device_counts AS
  SELECT state, enabled, COUNT(*) AS devices FROM devices GROUP BY state, enabled;
-- What happened to a device is a list: it knows the last entry, and each entry the one before it. An index has the others: the
-- end of a device that was deleted, what no device is concerned with, and what was written before there were such lists.
ALTER TABLE devices ADD COLUMN last_entry BIGINT;
ALTER TABLE entries ADD COLUMN earlier BIGINT;
ALTER TABLE entries ADD COLUMN is_linked BIGINT NOT NULL DEFAULT 0;
ON SQLITE DROP INDEX entries_by_device;
ON MYSQL DROP INDEX entries_by_device ON entries;
ON SQLITE CREATE INDEX entries_by_device ON entries (device, sequence) WHERE is_linked = 0;
ON MYSQL CREATE INDEX entries_by_device ON entries (device, is_linked, sequence);
