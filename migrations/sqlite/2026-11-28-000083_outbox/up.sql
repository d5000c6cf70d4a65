-- Alerts that the operator's webhook was told of, or will be, and not yet of their ends.
CREATE TABLE told_alerts (
    instance_id TEXT NOT NULL,
    -- What the alert is about; stays the same while its words change.
    subject     TEXT NOT NULL,
    gravity     TEXT NOT NULL,
    -- What was told of it, as JSON.
    told        TEXT NOT NULL,
    PRIMARY KEY (instance_id, subject)
);

-- Messages that the operator's webhook has not got yet.
CREATE TABLE outbox (
    ordinal     INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- The receiver knows by it what it has got already.
    id          TEXT NOT NULL UNIQUE,
    instance_id TEXT NOT NULL,
    body        TEXT NOT NULL,
    made_at     TIMESTAMP NOT NULL,
    tries       INTEGER NOT NULL,
    due_at      TIMESTAMP NOT NULL
);
CREATE INDEX outbox_of_instance ON outbox (instance_id, ordinal);

-- Of several brokers on one store, the one that finds changes and sends messages.
CREATE TABLE couriers (
    id         INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    owner      TEXT NOT NULL,
    held_until TIMESTAMP NOT NULL
);
