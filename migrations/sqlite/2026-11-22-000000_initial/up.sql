-- Portable columns: text ids, UTC timestamps, JSON as text. The PostgreSQL twin of this file
-- differs in type names only.

CREATE TABLE instances (
    id            TEXT PRIMARY KEY NOT NULL,
    service_id    TEXT NOT NULL,
    plan_id       TEXT NOT NULL,
    platform      TEXT NOT NULL,
    organization  TEXT NOT NULL,
    space         TEXT NOT NULL,
    deployment_id TEXT NOT NULL UNIQUE,
    context       TEXT NOT NULL,
    parameters    TEXT NOT NULL,
    request       TEXT NOT NULL,
    state         TEXT NOT NULL,
    created_at    TIMESTAMP NOT NULL
);

CREATE TABLE deployments (
    id             TEXT PRIMARY KEY NOT NULL,
    instance_id    TEXT NOT NULL UNIQUE,
    cluster_id     TEXT NOT NULL,
    engine         TEXT NOT NULL,
    version        TEXT NOT NULL,
    units          INTEGER NOT NULL,
    members        TEXT NOT NULL,
    sealed_secrets TEXT
);

-- By host, since several clusters can share one.
CREATE TABLE ports (
    host          TEXT NOT NULL,
    port          INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    PRIMARY KEY (host, port)
);
CREATE INDEX ports_of_deployment ON ports (deployment_id);

CREATE TABLE bindings (
    instance_id    TEXT NOT NULL,
    id             TEXT NOT NULL,
    parameters     TEXT NOT NULL,
    request        TEXT NOT NULL,
    database_user  TEXT NOT NULL UNIQUE,
    sealed_secrets TEXT NOT NULL,
    -- What the application gets; there once the binding is usable.
    sealed_credentials TEXT,
    state          TEXT NOT NULL,
    created_at     TIMESTAMP NOT NULL,
    PRIMARY KEY (instance_id, id)
);

CREATE TABLE tokens (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    instance_id TEXT NOT NULL,
    binding_id  TEXT NOT NULL,
    created_at  TIMESTAMP NOT NULL
);
CREATE INDEX tokens_of_instance ON tokens (instance_id, binding_id);

CREATE TABLE backups (
    id            TEXT PRIMARY KEY NOT NULL,
    instance_id   TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    operation_id  TEXT NOT NULL,
    kind          TEXT NOT NULL,
    state         TEXT NOT NULL,
    failure       TEXT,
    manifest      TEXT,
    created_at    TIMESTAMP NOT NULL,
    finished_at   TIMESTAMP
);
CREATE INDEX backups_of_instance ON backups (instance_id, created_at);

CREATE TABLE operations (
    id            TEXT PRIMARY KEY NOT NULL,
    kind          TEXT NOT NULL,
    instance_id   TEXT NOT NULL,
    binding_id    TEXT,
    backup_id     TEXT,
    source        TEXT,
    -- What nobody else may work on meanwhile; given up when the operation is halted.
    exclusive_key TEXT,
    waits_for     TEXT NOT NULL,
    state         TEXT NOT NULL,
    halted        BOOLEAN NOT NULL,
    step          TEXT NOT NULL,
    steps_done    INTEGER NOT NULL,
    steps_total   INTEGER NOT NULL,
    bytes_done    BIGINT NOT NULL,
    bytes_total   BIGINT NOT NULL,
    failure       TEXT,
    origin        TEXT NOT NULL,
    owner         TEXT,
    lease_until   TIMESTAMP,
    not_before    TIMESTAMP NOT NULL,
    epoch         BIGINT NOT NULL,
    created_at    TIMESTAMP NOT NULL,
    updated_at    TIMESTAMP NOT NULL
);
-- One mutation at a time, held by the database.
CREATE UNIQUE INDEX operations_exclusive ON operations (exclusive_key)
    WHERE state IN ('queued', 'running');
CREATE INDEX operations_by_state ON operations (state, not_before);
CREATE INDEX operations_by_backup ON operations (backup_id);
CREATE INDEX operations_of_instance ON operations (instance_id, created_at);
CREATE INDEX operations_by_age ON operations (updated_at);

CREATE TABLE operation_steps (
    operation_id TEXT NOT NULL,
    name         TEXT NOT NULL,
    failures     INTEGER NOT NULL,
    result       TEXT,
    PRIMARY KEY (operation_id, name)
);
