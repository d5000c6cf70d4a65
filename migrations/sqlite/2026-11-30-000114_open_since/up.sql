-- Since when looks at a database have shown it open to its users and with room for writes.
ALTER TABLE seen_states ADD COLUMN open_since TIMESTAMP;
UPDATE seen_states SET open_since = since
WHERE full_since IS NULL
    AND deployment_id NOT IN (SELECT id FROM deployments WHERE closed_since IS NOT NULL);
