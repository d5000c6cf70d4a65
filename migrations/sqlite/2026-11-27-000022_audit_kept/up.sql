-- Up to when the audit was forgotten, as the operator asked: one row, or none. The database refuses
-- to remove anything later.
CREATE TABLE audit_horizon (
    id               INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    forgotten_before TIMESTAMP NOT NULL
);
DROP TRIGGER audit_is_not_shortened;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < forgotten_before)
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
