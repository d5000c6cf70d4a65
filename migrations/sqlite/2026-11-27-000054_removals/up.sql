-- A backup that is old enough to go: why, and when its bytes go.
ALTER TABLE backups ADD COLUMN removal TEXT;
ALTER TABLE backups ADD COLUMN removal_at TIMESTAMP;

CREATE INDEX backups_by_removal ON backups (removal_at) WHERE removal_at IS NOT NULL;
