ALTER TABLE operations DROP COLUMN survivor;
