-- The folders that the broker keeps things in, each with the id that its marker has to show.
CREATE TABLE folders (
    name TEXT PRIMARY KEY NOT NULL,
    marker TEXT NOT NULL
);
