ALTER TABLE operation_steps DROP COLUMN failed_at;
ALTER TABLE operation_steps DROP COLUMN last_error;
ALTER TABLE operation_steps DROP COLUMN waited_ms;
ALTER TABLE operation_steps DROP COLUMN spent_ms;
ALTER TABLE operation_steps DROP COLUMN shortages;
ALTER TABLE operations DROP COLUMN trouble;
