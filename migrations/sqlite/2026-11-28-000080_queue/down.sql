DROP TRIGGER deployments_grow;
DROP TRIGGER deployments_leave;
DROP TRIGGER deployments_are_placed;
DROP TABLE placed;
DROP INDEX operations_active_of_kind;
DROP INDEX operations_active_of_instance;
DROP TABLE lanes;
DROP TABLE waiting;
