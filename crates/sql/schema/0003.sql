-- When the earlier certificates of a device are to lose their power: it has a newer one.
ALTER TABLE devices ADD COLUMN succession_ends BIGINT;
CREATE INDEX devices_by_succession ON devices (succession_ends) PRESENT(succession_ends);
