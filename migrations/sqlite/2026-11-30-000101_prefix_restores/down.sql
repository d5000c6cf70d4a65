ALTER TABLE operations DROP COLUMN prefix_restore;
