-- The member that a database is recovered from; null where it is a backup.
ALTER TABLE operations ADD COLUMN survivor TEXT;
