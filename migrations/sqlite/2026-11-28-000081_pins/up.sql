-- What users write down beside a backup, and whether they want it kept beyond its time.
ALTER TABLE backups ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE backups ADD COLUMN pinned BOOLEAN NOT NULL DEFAULT FALSE;
