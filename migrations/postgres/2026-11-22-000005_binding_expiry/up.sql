-- Bindings that end by themselves: when, as their applications are told, and when the broker looks
-- at it next. Nothing is due while a durable operation sees to it, or when it is done.
ALTER TABLE bindings ADD COLUMN expires_at TIMESTAMP;
ALTER TABLE bindings ADD COLUMN expiry_due TIMESTAMP;
CREATE INDEX bindings_by_expiry ON bindings (expiry_due) WHERE expiry_due IS NOT NULL;
