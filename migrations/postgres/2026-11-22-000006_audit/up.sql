-- Who had what done. Rows are added in the transaction that accepts the work, and never changed:
-- the database itself refuses.
CREATE TABLE audit (
    id           BIGSERIAL PRIMARY KEY NOT NULL,
    at           TIMESTAMP NOT NULL,
    action       TEXT NOT NULL,
    origin       TEXT NOT NULL,
    instance_id  TEXT NOT NULL,
    binding_id   TEXT,
    operation_id TEXT NOT NULL,
    platform     TEXT,
    actor        TEXT,
    request_id   TEXT
);
CREATE INDEX audit_of_instance ON audit (instance_id, id);
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END;
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
