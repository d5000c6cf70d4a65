ALTER TABLE operation_steps DROP COLUMN done_at;
