-- Up to when the audit was forgotten, as the operator asked: one row, or none. The database refuses
-- to remove anything later.
CREATE TABLE audit_horizon (
    id               INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    forgotten_before TIMESTAMP NOT NULL
);
CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < forgotten_before) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit is append-only';
END;
$$;
