-- When each usable instance is looked at next. The PostgreSQL twin of this file is the same.

CREATE TABLE schedules (
    instance_id TEXT PRIMARY KEY NOT NULL,
    cluster_id  TEXT NOT NULL,
    next_at     TIMESTAMP NOT NULL,
    -- Of the current slot's backup.
    failures    INTEGER NOT NULL
);
-- What is due costs what is due, however many instances there are.
CREATE INDEX schedules_by_moment ON schedules (cluster_id, next_at);

-- Instances that were never backed up by themselves are due.
INSERT INTO schedules (instance_id, cluster_id, next_at, failures)
    SELECT instances.id, deployments.cluster_id, '1970-01-01 00:00:00', 0
    FROM instances JOIN deployments ON deployments.instance_id = instances.id
    WHERE instances.state = 'ready';

-- A day, week or month; null for what the schedule did not take.
ALTER TABLE backups ADD COLUMN period TEXT;
-- One backup for each, held by the database: a second scheduler is harmless.
CREATE UNIQUE INDEX backups_scheduled ON backups (instance_id, period, kind)
    WHERE state <> 'failed' AND period IS NOT NULL;
