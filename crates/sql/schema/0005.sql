-- Imports and exports that go on when nobody waits for them.
CREATE TABLE jobs (
  id NAME NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL,
  -- The folder that its files are in: who does not have it cannot go on with it.
  folder NAME NOT NULL,
  ended_at BIGINT,
  record DOCUMENT NOT NULL
) OPTIONS;
CREATE INDEX jobs_by_end ON jobs (ended_at);
