-- Since when a full database lets nobody in but the broker; null while it is open.
ALTER TABLE deployments ADD COLUMN closed_since TIMESTAMP;
-- The keys that are deleted to make room begin with this.
ALTER TABLE operations ADD COLUMN delete_prefix TEXT;
-- What befell a database and its users should know for a while.
CREATE TABLE incidents (
    id            INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    deployment_id TEXT NOT NULL,
    at            TIMESTAMP NOT NULL,
    message       TEXT NOT NULL
);
CREATE INDEX incidents_of_deployment ON incidents (deployment_id, at);
