-- The ids of the context that tell tenants apart where organizations and spaces do not: a JSON
-- object of texts. Earlier instances keep the owner that they have.
ALTER TABLE instances ADD COLUMN account TEXT NOT NULL DEFAULT '{}';
DROP INDEX instances_of_tenant;
CREATE INDEX instances_of_tenant ON instances (platform, organization, space, account, plan_id);
