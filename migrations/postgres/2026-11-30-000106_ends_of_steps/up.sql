-- When each step of an operation was done. What a step came to is forgotten with the operation's end, and that it was done
-- is not.
ALTER TABLE operation_steps ADD COLUMN done_at TIMESTAMP;
