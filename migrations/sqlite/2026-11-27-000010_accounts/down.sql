DROP INDEX instances_of_tenant;
CREATE INDEX instances_of_tenant ON instances (platform, organization, space, plan_id);
ALTER TABLE instances DROP COLUMN account;
