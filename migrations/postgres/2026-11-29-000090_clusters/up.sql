-- Which machine's broker looks after a cluster, and what is installed there, for brokers that share the store.
CREATE TABLE clusters (
    id       TEXT PRIMARY KEY NOT NULL,
    machine  TEXT NOT NULL,
    -- By engine, as JSON.
    versions TEXT NOT NULL,
    -- When a broker looked after it last, by the time that leases go by.
    seen_at  TIMESTAMP NOT NULL
);

-- The brokers that share the store, and what they can open.
CREATE TABLE brokers (
    -- That of the broker's data folder.
    id      TEXT PRIMARY KEY NOT NULL,
    machine TEXT NOT NULL,
    version TEXT NOT NULL,
    -- The names of the keys of its ring with a digest of each, newest first, as JSON.
    keys    TEXT NOT NULL,
    seen_at TIMESTAMP NOT NULL
);

-- A trigger for each row hears nothing of TRUNCATE.
CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
