CREATE INDEX operations_by_creation ON operations (created_at, id);
CREATE INDEX operations_of_instance ON operations (instance_id, created_at);
DROP INDEX backups_by_ordinal;
DROP INDEX operations_of_instance_by_ordinal;
DROP INDEX operations_by_ordinal;
ALTER TABLE instances DROP COLUMN ordinal;
ALTER TABLE backups DROP COLUMN namesake;
ALTER TABLE backups DROP COLUMN ordinal;
ALTER TABLE operations DROP COLUMN ordinal;
