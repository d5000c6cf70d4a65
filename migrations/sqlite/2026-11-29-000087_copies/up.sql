-- Copies of the store between databases: what was copied `in`, and when what is here was copied `out`. A
-- database whose copy is not whole, and one that was copied out, are used by no broker.
CREATE TABLE copies (
    direction TEXT PRIMARY KEY NOT NULL,
    begun_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP
);
