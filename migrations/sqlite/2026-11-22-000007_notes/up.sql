-- What users write down beside a deployment; there is a row where somebody did.
CREATE TABLE notes (
    deployment_id TEXT PRIMARY KEY NOT NULL,
    text TEXT NOT NULL,
    customer_billing_code TEXT NOT NULL
);
