-- Sessions of the dashboard. The PostgreSQL twin of this file is alike.

CREATE TABLE sessions (
    -- Of the cookie's value, which is kept nowhere.
    fingerprint TEXT PRIMARY KEY NOT NULL,
    -- The one instance that it is for; NULL: all, an operator's.
    instance_id TEXT,
    -- What it was opened with, and which one: a session does not outlive it.
    origin      TEXT NOT NULL,
    origin_mark TEXT NOT NULL,
    created_at  TIMESTAMP NOT NULL,
    expires_at  TIMESTAMP NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_of_instance ON sessions (instance_id);

-- One-time links that were redeemed, until they would have expired anyway.
CREATE TABLE used_links (
    nonce      TEXT PRIMARY KEY NOT NULL,
    expires_at TIMESTAMP NOT NULL
);
