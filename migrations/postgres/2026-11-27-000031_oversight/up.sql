-- An operator wants nothing more done for it.
ALTER TABLE operations ADD COLUMN abandoned BOOLEAN NOT NULL DEFAULT FALSE;
-- For operators, who see the operations of all instances.
CREATE INDEX operations_by_creation ON operations (created_at, id);
-- When a step was first tried: the order in which steps are told.
ALTER TABLE operation_steps ADD COLUMN begun_at TIMESTAMP;
