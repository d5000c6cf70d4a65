-- When a backup was copied into the mirror, and when the next look at that copy is due. It is due as soon as the
-- backup is complete, whether there is a mirror or not: one that is set later gets the older ones too.
ALTER TABLE backups ADD COLUMN mirrored_at TIMESTAMP;
ALTER TABLE backups ADD COLUMN mirror_due_at TIMESTAMP;
UPDATE backups SET mirror_due_at = finished_at WHERE state = 'complete';
CREATE INDEX backups_by_mirror ON backups (mirror_due_at) WHERE mirror_due_at IS NOT NULL;
CREATE INDEX backups_unmirrored ON backups (finished_at) WHERE state = 'complete' AND mirrored_at IS NULL;
-- What is in the mirror, or may be: a row is there before the first byte and goes after the last one. What it is a
-- copy of may be gone by then. `sealed_under`: the key that the copied manifest is sealed under. `read_at`: when
-- all of its bytes were read last. `held_by`: the broker that works on it until `held_until`.
CREATE TABLE mirror_copies (
    backup_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    sealed_under TEXT NOT NULL,
    read_at TIMESTAMP,
    tries INTEGER NOT NULL,
    failure TEXT,
    held_by TEXT NOT NULL,
    held_until TIMESTAMP
);
-- The mirror, by its marker: since when there is one, and what was wrong with it last.
CREATE TABLE mirrors (
    marker TEXT NOT NULL PRIMARY KEY,
    since TIMESTAMP NOT NULL,
    failure TEXT,
    failed_at TIMESTAMP
);
