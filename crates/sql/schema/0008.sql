-- What a device was given stands in the ledger alone, at its end, and the device has its number: so a vend writes little to the
-- device's page, which else would be divided at nearly each of them, and nothing to an index of things. The certificates of a
-- device are a list, as its entries in the trail are: it knows the last one, and each of them the one before it. An index has the
-- others: those of devices that were deleted, and what was entered before there were such lists.
ALTER TABLE devices ADD COLUMN last_certificate BIGINT;
-- The one in the ledger that the device has; none where its own record has it.
ALTER TABLE devices ADD COLUMN credential BIGINT;
ON MYSQL ALTER TABLE certificates DROP PRIMARY KEY, ADD COLUMN sequence SEQUENCE, ADD COLUMN pem DOCUMENT,
  ADD COLUMN standing NAME, ADD COLUMN since BIGINT, ADD COLUMN given DOCUMENT, ADD COLUMN earlier BIGINT,
  ADD COLUMN is_linked BIGINT NOT NULL DEFAULT 0;
ON MYSQL UPDATE certificates SET pem = JSON_UNQUOTE(JSON_EXTRACT(record, '$.certificatePem')),
  standing = JSON_UNQUOTE(JSON_EXTRACT(record, '$.standing')), since = JSON_EXTRACT(record, '$.since');
ON MYSQL ALTER TABLE certificates DROP COLUMN record;
-- The beginning of a hash is enough to find it by.
ON MYSQL CREATE INDEX certificates_by_id ON certificates (id(12));
ON SQLITE CREATE TABLE ledger (
  -- Nothing is deleted, so that the next number is always a new one.
  sequence INTEGER PRIMARY KEY,
  id NAME NOT NULL,
  issuer NAME NOT NULL,
  serial NAME NOT NULL,
  pem DOCUMENT NOT NULL,
  thing NAME NOT NULL,
  not_after BIGINT NOT NULL,
  standing NAME NOT NULL,
  since BIGINT NOT NULL,
  powerless BIGINT NOT NULL,
  device NAME,
  -- What the device was given beside the certificate.
  given DOCUMENT,
  earlier BIGINT,
  is_linked BIGINT NOT NULL DEFAULT 0
) OPTIONS;
ON SQLITE INSERT INTO ledger (id, issuer, serial, pem, thing, not_after, standing, since, powerless, device)
  SELECT id, issuer, serial, FIELD(record, '$.certificatePem'), thing, not_after, FIELD(record, '$.standing'),
  FIELD(record, '$.since'), powerless, device FROM certificates ORDER BY rowid;
ON SQLITE DROP TABLE certificates;
ON SQLITE ALTER TABLE ledger RENAME TO certificates;
ON SQLITE CREATE INDEX certificates_by_id ON certificates (substr(id, 1, 12));
ON SQLITE CREATE UNIQUE INDEX certificates_by_serial ON certificates (issuer, serial);
ON SQLITE CREATE INDEX certificates_by_power ON certificates (issuer, not_after) WHERE powerless = 1;
ON SQLITE CREATE INDEX certificates_by_thing ON certificates (thing) WHERE is_linked = 0;
