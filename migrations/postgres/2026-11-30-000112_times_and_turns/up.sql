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
    SELECT o.id, b.manifest::json ->> 'engine', (b.manifest::json -> 'stored' ->> 'snapshot_bytes')::bigint,
        round(extract(epoch FROM o.updated_at - o.created_at) * 1000)::bigint, o.updated_at
    FROM operations o JOIN backups b ON b.id = o.backup_id
    WHERE o.kind = 'restore' AND o.state = 'succeeded'
        AND b.manifest::json ->> 'engine' IS NOT NULL
        AND b.manifest::json -> 'stored' ->> 'snapshot_bytes' IS NOT NULL;
-- Which member has its turn in a step that takes one after the other.
ALTER TABLE operations ADD COLUMN turn TEXT;
-- Entries that stand for several accesses are written down later than the last of these: they are listed by their time.
CREATE INDEX audit_by_time ON audit (at, id);
CREATE INDEX audit_of_instance_by_time ON audit (instance_id, at, id);
