DROP INDEX backups_by_proof;
ALTER TABLE backups DROP COLUMN proof_at;
ALTER TABLE backups DROP COLUMN proof;
