DROP TRIGGER deployments_are_placed ON deployments;
DROP FUNCTION count_placed();
DROP TABLE placed;
DROP INDEX operations_active_of_kind;
DROP INDEX operations_active_of_instance;
DROP TABLE lanes;
DROP TABLE waiting;
