ALTER TABLE operations DROP COLUMN change;
