-- Backups that users bring along: how much of each has come, and the objects that hold it by now.
CREATE TABLE uploads (
    backup_id TEXT NOT NULL PRIMARY KEY,
    instance_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 TEXT,
    version TEXT NOT NULL,
    received BIGINT NOT NULL,
    touched_at TIMESTAMP NOT NULL
);
CREATE INDEX uploads_instance ON uploads (instance_id);
CREATE INDEX uploads_touched_at ON uploads (touched_at);
CREATE TABLE upload_parts (
    id TEXT NOT NULL PRIMARY KEY,
    backup_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    stored TEXT NOT NULL,
    sealed_key TEXT NOT NULL
);
CREATE INDEX upload_parts_backup ON upload_parts (backup_id, at);
