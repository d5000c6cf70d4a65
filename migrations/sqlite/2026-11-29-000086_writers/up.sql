-- As in PostgreSQL. A commit to a file is not lost on the way, so nothing is written here.
CREATE TABLE writers (
    id TEXT PRIMARY KEY,
    mark BIGINT NOT NULL,
    written_at TIMESTAMP NOT NULL
);
