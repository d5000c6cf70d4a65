DROP TABLE operation_steps;
DROP TABLE operations;
DROP TABLE backups;
DROP TABLE tokens;
DROP TABLE bindings;
DROP TABLE ports;
DROP TABLE deployments;
DROP TABLE instances;
