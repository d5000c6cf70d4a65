ALTER TABLE deployments DROP COLUMN name;
