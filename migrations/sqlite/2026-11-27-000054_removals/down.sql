DROP INDEX backups_by_removal;
ALTER TABLE backups DROP COLUMN removal_at;
ALTER TABLE backups DROP COLUMN removal;
