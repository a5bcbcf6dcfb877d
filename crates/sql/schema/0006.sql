-- The ledger knows whose a certificate is, so that a vend with our own CA writes to one index less.
ALTER TABLE certificates ADD COLUMN device NAME;
-- Devices in one state are listed by their ids, and counted without a look at the devices themselves.
ON MYSQL DROP INDEX devices_by_state ON devices;
ON SQLITE DROP INDEX devices_by_state;
CREATE INDEX devices_in_state ON devices (state, id, enabled);
