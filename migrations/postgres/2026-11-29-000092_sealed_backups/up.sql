-- The name of the key that all is sealed under which stands beside a complete backup; empty where nobody knows,
-- as of backups that an earlier version took.
ALTER TABLE backups ADD COLUMN sealed_under TEXT NOT NULL DEFAULT '';
CREATE INDEX backups_sealed_under ON backups (sealed_under) WHERE state = 'complete';
