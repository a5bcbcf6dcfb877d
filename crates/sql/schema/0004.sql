-- On SQLite each index that a vend writes to is a page more on the disk. A revocation list has those without power alone,
-- which are few; and a single chain is read by the numbers of its entries.
ON SQLITE DROP INDEX certificates_by_power;
ON SQLITE CREATE INDEX certificates_by_power ON certificates (issuer, not_after) WHERE powerless = 1;
ON SQLITE DROP INDEX entries_by_chain;
