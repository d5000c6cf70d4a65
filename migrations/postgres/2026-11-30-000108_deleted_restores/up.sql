-- Of which deployment's backup a deleted instance was made: the page of its source goes on listing it.
ALTER TABLE deleted_instances ADD COLUMN restored_from TEXT;
CREATE INDEX deleted_instances_source ON deleted_instances (restored_from, deleted_at) WHERE restored_from IS NOT NULL;
