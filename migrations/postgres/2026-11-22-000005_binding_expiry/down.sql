DROP INDEX bindings_by_expiry;
ALTER TABLE bindings DROP COLUMN expiry_due;
ALTER TABLE bindings DROP COLUMN expires_at;
