-- What is counted of a tenant before it gets more.
CREATE INDEX instances_of_tenant ON instances (platform, organization, space, plan_id);
