-- How long each of the last restores took: what a restore will take is reckoned from them. They outlive the instance
-- that was made, its operation and the backup, and name none of them but by the operation's id.
CREATE TABLE restore_times (
    operation_id TEXT NOT NULL PRIMARY KEY,
    engine TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    ended_at TIMESTAMP NOT NULL
);
CREATE INDEX restore_times_of_engine ON restore_times (engine, ended_at);
INSERT INTO restore_times (operation_id, engine, bytes, took_ms, ended_at)
    SELECT o.id, json_extract(b.manifest, '$.engine'), json_extract(b.manifest, '$.stored.snapshot_bytes'),
        CAST(round((julianday(o.updated_at) - julianday(o.created_at)) * 86400000) AS INTEGER), o.updated_at
    FROM operations o JOIN backups b ON b.id = o.backup_id
    WHERE o.kind = 'restore' AND o.state = 'succeeded'
        AND json_extract(b.manifest, '$.engine') IS NOT NULL
        AND json_extract(b.manifest, '$.stored.snapshot_bytes') IS NOT NULL;
-- Which member has its turn in a step that takes one after the other.
ALTER TABLE operations ADD COLUMN turn TEXT;
-- Entries that stand for several accesses are written down later than the last of these: they are listed by their time.
CREATE INDEX audit_by_time ON audit (at, id);
CREATE INDEX audit_of_instance_by_time ON audit (instance_id, at, id);
