-- Whose a key is: no two devices have the same one. Of devices that had one before there was this table, the first keeps it.
ON SQLITE CREATE TABLE device_keys (
  fingerprint NAME NOT NULL PRIMARY KEY,
  device NAME NOT NULL
) OPTIONS, WITHOUT ROWID;
ON MYSQL CREATE TABLE device_keys (
  fingerprint NAME NOT NULL PRIMARY KEY,
  device NAME NOT NULL
) OPTIONS;
ON SQLITE INSERT OR IGNORE INTO device_keys SELECT FIELD(given, '$.key'), devices.id
  FROM devices JOIN certificates ON certificates.sequence = devices.credential
  WHERE given IS NOT NULL ORDER BY devices.updated_at;
ON MYSQL INSERT IGNORE INTO device_keys SELECT FIELD(given, '$.key'), devices.id
  FROM devices JOIN certificates ON certificates.sequence = devices.credential
  WHERE given IS NOT NULL ORDER BY devices.updated_at;
ON SQLITE INSERT OR IGNORE INTO device_keys SELECT FIELD(record, '$.credential.key'), id
  FROM devices WHERE FIELD(record, '$.credential.key') IS NOT NULL ORDER BY updated_at;
ON MYSQL INSERT IGNORE INTO device_keys SELECT FIELD(record, '$.credential.key'), id
  FROM devices WHERE FIELD(record, '$.credential.key') IS NOT NULL ORDER BY updated_at;
