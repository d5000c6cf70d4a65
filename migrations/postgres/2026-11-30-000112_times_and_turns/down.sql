DROP INDEX audit_of_instance_by_time;
DROP INDEX audit_by_time;
ALTER TABLE operations DROP COLUMN turn;
DROP INDEX restore_times_of_engine;
DROP TABLE restore_times;
