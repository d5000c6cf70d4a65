-- How each database was over time: one row, with a bounded number of readings, as JSON.
CREATE TABLE readings (
    deployment_id TEXT PRIMARY KEY,
    kept TEXT NOT NULL
);
