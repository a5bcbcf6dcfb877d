-- The names in capitals stand for what the databases call it: see src/schema.rs.

CREATE TABLE devices (
  id NAME NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL,
  state NAME NOT NULL,
  enabled BIGINT NOT NULL,
  device_group NAME,
  template NAME,
  -- The certificate that the device has, or awaits.
  certificate NAME,
  -- Since when it is not known what attempts have left behind.
  unsettled_since BIGINT,
  updated_at BIGINT NOT NULL,
  record DOCUMENT NOT NULL
) OPTIONS;
CREATE INDEX devices_by_state ON devices (state, enabled);
CREATE INDEX devices_by_group ON devices (device_group, id) PRESENT(device_group);
CREATE INDEX devices_by_certificate ON devices (certificate) PRESENT(certificate);
CREATE INDEX devices_by_unsettled ON devices (unsettled_since) PRESENT(unsettled_since);

CREATE TABLE tombstones (
  id NAME NOT NULL,
  generation NAME NOT NULL,
  record DOCUMENT NOT NULL,
  PRIMARY KEY (id, generation)
) OPTIONS;

CREATE TABLE claims (
  certificate NAME NOT NULL PRIMARY KEY,
  record DOCUMENT NOT NULL
) OPTIONS;

-- How many claims a trusted user had made out on that day, counted from 1970-01-01.
CREATE TABLE claim_counts (
  trusted_user NAME NOT NULL PRIMARY KEY,
  day BIGINT NOT NULL,
  used BIGINT NOT NULL
) OPTIONS;

CREATE TABLE presences (
  id NAME NOT NULL PRIMARY KEY,
  connected BIGINT NOT NULL,
  -- Of two words of the platform the later counts.
  position BIGINT NOT NULL,
  record DOCUMENT NOT NULL
) OPTIONS;
CREATE INDEX presences_by_connected ON presences (connected);

CREATE TABLE places (
  name NAME NOT NULL PRIMARY KEY,
  place DOCUMENT NOT NULL
) OPTIONS;

-- The certificates that our own CA has issued.
CREATE TABLE certificates (
  id NAME NOT NULL PRIMARY KEY,
  issuer NAME NOT NULL,
  thing NAME NOT NULL,
  -- Whether it is in a revocation list: 0 or 1.
  powerless BIGINT NOT NULL,
  not_after BIGINT NOT NULL,
  record DOCUMENT NOT NULL
) OPTIONS;
CREATE INDEX certificates_by_thing ON certificates (thing);
CREATE INDEX certificates_by_power ON certificates (powerless, issuer, not_after);

-- What operators have decided and the platform has not been told yet.
CREATE TABLE decisions (
  sequence SEQUENCE,
  device NAME NOT NULL,
  generation NAME NOT NULL,
  deleted BIGINT NOT NULL
) OPTIONS;

-- What happened; nothing of it is ever changed. The hash of an entry is that of the one before it in its chain and of its
-- own document, so that a change shows.
CREATE TABLE entries (
  sequence SEQUENCE,
  chain BIGINT NOT NULL,
  id NAME NOT NULL,
  device NAME NOT NULL,
  moment BIGINT NOT NULL,
  document DOCUMENT NOT NULL,
  hash NAME NOT NULL
) OPTIONS;
CREATE INDEX entries_by_device ON entries (device, moment);
CREATE INDEX entries_by_moment ON entries (moment);
CREATE INDEX entries_by_chain ON entries (chain);

-- The ends of the chains: how many entries each has, and the hash of the last one.
CREATE TABLE chains (
  chain BIGINT NOT NULL PRIMARY KEY,
  length BIGINT NOT NULL,
  hash NAME NOT NULL
) OPTIONS;
