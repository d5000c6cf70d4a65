DROP INDEX backups_sealed_under;
ALTER TABLE backups DROP COLUMN sealed_under;
