-- What each writer has committed last: after a connection that was lost in a commit this tells what became
-- of it.
CREATE TABLE writers (
    id TEXT PRIMARY KEY,
    mark BIGINT NOT NULL,
    written_at TIMESTAMP NOT NULL
) WITH (fillfactor = 50);
