-- Since when looks at the members of a database have shown the same of them: a broker that begins again goes on
-- counting from there.
CREATE TABLE seen_states (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    usable BOOLEAN NOT NULL,
    whole BOOLEAN NOT NULL,
    since TIMESTAMP NOT NULL,
    full_since TIMESTAMP
);
