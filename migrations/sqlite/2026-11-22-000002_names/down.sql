DROP INDEX deployments_by_cluster;
DROP INDEX instances_by_source;
DROP INDEX instances_by_name;
DROP INDEX instances_own_names;
ALTER TABLE instances DROP COLUMN restored_from;
ALTER TABLE instances DROP COLUMN name;
