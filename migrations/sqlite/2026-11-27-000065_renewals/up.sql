-- When the certificates of each deployment are renewed next, when the first of them ends, and when the
-- next authority issues.
CREATE TABLE renewals (
    deployment_id TEXT PRIMARY KEY NOT NULL,
    due_at        TIMESTAMP NOT NULL,
    ends_at       TIMESTAMP NOT NULL,
    changes_at    TIMESTAMP
);
CREATE INDEX renewals_due ON renewals (due_at);
