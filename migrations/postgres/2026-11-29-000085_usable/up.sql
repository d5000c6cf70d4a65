-- Leads to the deployments in use, in the order of their ids: what watches over them reads these again and
-- again, whatever else there is.
CREATE INDEX instances_usable ON instances (deployment_id) WHERE state = 'ready';
