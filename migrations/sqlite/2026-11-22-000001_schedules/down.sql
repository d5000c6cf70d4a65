DROP INDEX backups_scheduled;
ALTER TABLE backups DROP COLUMN period;
DROP TABLE schedules;
