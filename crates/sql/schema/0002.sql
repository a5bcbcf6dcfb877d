-- A certificate is asked for by its serial number, too, which is one among those of its issuer.
ALTER TABLE certificates ADD COLUMN serial NAME;
UPDATE certificates SET serial = FIELD(record, '$.serial');
CREATE UNIQUE INDEX certificates_by_serial ON certificates (issuer, serial);
