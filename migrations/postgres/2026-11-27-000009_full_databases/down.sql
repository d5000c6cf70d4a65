DROP TABLE incidents;
ALTER TABLE operations DROP COLUMN delete_prefix;
ALTER TABLE deployments DROP COLUMN closed_since;
