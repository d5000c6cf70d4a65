-- What is known of the time, to hold the clock against.
CREATE TABLE known_time (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    state TEXT NOT NULL
);
