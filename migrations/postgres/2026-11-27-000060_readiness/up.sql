-- One row, written anew by each look whether the store takes writes.
CREATE TABLE readiness (
    id INTEGER PRIMARY KEY NOT NULL,
    looks BIGINT NOT NULL
);
