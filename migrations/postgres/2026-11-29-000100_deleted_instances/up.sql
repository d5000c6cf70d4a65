-- Instances that were deleted and whose backups are there still. Their rows in `backups` have the instance
-- `deleted:` and the deployment.
CREATE TABLE deleted_instances (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    instance_id TEXT NOT NULL,
    service_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    platform TEXT NOT NULL,
    organization TEXT NOT NULL,
    space TEXT NOT NULL,
    account TEXT NOT NULL,
    name TEXT,
    cluster_id TEXT NOT NULL,
    engine TEXT NOT NULL,
    version TEXT NOT NULL,
    units INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    deleted_at TIMESTAMP NOT NULL,
    kept_until TIMESTAMP NOT NULL,
    final_backup_failure TEXT
);
CREATE INDEX deleted_instances_instance ON deleted_instances (instance_id);
CREATE INDEX deleted_instances_kept_until ON deleted_instances (kept_until);
CREATE INDEX deleted_instances_owner ON deleted_instances (platform, organization, space);
