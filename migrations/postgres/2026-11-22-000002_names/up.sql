-- What people call an instance, where that is known.
ALTER TABLE instances ADD COLUMN name TEXT;
-- The deployment whose backup the broker itself made this instance of; empty where a platform asked
-- for it. Not the instance's id: a platform may use that again.
ALTER TABLE instances ADD COLUMN restored_from TEXT;

-- A tenant's names are unique among the instances that we name. Platforms name as they like.
CREATE UNIQUE INDEX instances_own_names ON instances (platform, organization, space, name)
    WHERE restored_from IS NOT NULL;
CREATE INDEX instances_by_name ON instances (name);
CREATE INDEX instances_by_source ON instances (restored_from);
-- What is counted of a cluster before something is placed there.
CREATE INDEX deployments_by_cluster ON deployments (cluster_id, units);
