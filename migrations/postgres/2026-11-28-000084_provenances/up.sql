-- What instances were restored from, whoever asked for it: it outlives the source.
CREATE TABLE provenances (
    instance_id       TEXT PRIMARY KEY NOT NULL,
    source_instance   TEXT NOT NULL,
    source_deployment TEXT NOT NULL,
    source_name       TEXT,
    backup_id         TEXT NOT NULL,
    taken_at          TIMESTAMP NOT NULL
);
CREATE INDEX provenances_by_source ON provenances (source_deployment);

-- Of those that are there, as far as their restores are remembered.
INSERT INTO provenances
SELECT instances.id,
    (operations.source::jsonb #>> '{manifest,instance_id}'),
    (operations.source::jsonb #>> '{manifest,deployment_id}'),
    (SELECT source.name FROM instances AS source
        WHERE source.deployment_id = (operations.source::jsonb #>> '{manifest,deployment_id}')),
    (operations.source::jsonb #>> '{manifest,backup_id}'),
    ((operations.source::jsonb #>> '{manifest,requested_at}')::timestamptz AT TIME ZONE 'UTC')
FROM instances
JOIN operations ON operations.instance_id = instances.id
    AND operations.kind = 'restore'
    AND operations.ordinal >= instances.ordinal
WHERE operations.source IS NOT NULL
ON CONFLICT DO NOTHING;
