-- What a deployment is called; those of before keep the name that was told of them.
ALTER TABLE deployments ADD COLUMN name TEXT NOT NULL DEFAULT '';
UPDATE deployments SET name = 'compose-broker-' || engine || '-' || instance_id;
