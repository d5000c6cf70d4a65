DROP TABLE mirrors;
DROP TABLE mirror_copies;
DROP INDEX backups_unmirrored;
DROP INDEX backups_by_mirror;
ALTER TABLE backups DROP COLUMN mirror_due_at;
ALTER TABLE backups DROP COLUMN mirrored_at;
