ALTER TABLE schedules DROP COLUMN counts_from;
ALTER TABLE schedules DROP COLUMN months_kept;
ALTER TABLE schedules DROP COLUMN weeks_kept;
ALTER TABLE schedules DROP COLUMN days_kept;
ALTER TABLE schedules DROP COLUMN weekday;
ALTER TABLE schedules DROP COLUMN hour;
