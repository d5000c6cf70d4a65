-- What users choose of the schedule of their backups; NULL: as the broker has it for everybody. A weekday
-- is 1 (Monday) to 7. A backup is not late before counts_from.
ALTER TABLE schedules ADD COLUMN hour INTEGER;
ALTER TABLE schedules ADD COLUMN weekday INTEGER;
ALTER TABLE schedules ADD COLUMN days_kept INTEGER;
ALTER TABLE schedules ADD COLUMN weeks_kept INTEGER;
ALTER TABLE schedules ADD COLUMN months_kept INTEGER;
ALTER TABLE schedules ADD COLUMN counts_from TIMESTAMP;
