DROP INDEX backups_by_bytes_due;
ALTER TABLE backups DROP COLUMN bytes_due_at;
