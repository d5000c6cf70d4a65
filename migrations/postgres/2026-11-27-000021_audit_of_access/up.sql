-- Who got to see what: the backup that it was, from where, and how many times an entry stands for.
ALTER TABLE audit ADD COLUMN backup_id TEXT;
ALTER TABLE audit ADD COLUMN address TEXT;
ALTER TABLE audit ADD COLUMN times BIGINT NOT NULL DEFAULT 1;
