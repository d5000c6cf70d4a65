-- What a restore of a part of a database is to put back, and what came of it, as JSON.
ALTER TABLE operations ADD COLUMN prefix_restore TEXT;
