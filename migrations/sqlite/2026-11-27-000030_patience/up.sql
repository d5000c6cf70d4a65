-- What keeps an operation from getting on, as JSON; none while it gets on.
ALTER TABLE operations ADD COLUMN trouble TEXT;
-- Beside `failures`: what a step's tries came to, and why the last one failed, for operators.
ALTER TABLE operation_steps ADD COLUMN shortages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operation_steps ADD COLUMN spent_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE operation_steps ADD COLUMN waited_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE operation_steps ADD COLUMN last_error TEXT;
ALTER TABLE operation_steps ADD COLUMN failed_at TIMESTAMP;
