ALTER TABLE operation_steps DROP COLUMN begun_at;
DROP INDEX operations_by_creation;
ALTER TABLE operations DROP COLUMN abandoned;
