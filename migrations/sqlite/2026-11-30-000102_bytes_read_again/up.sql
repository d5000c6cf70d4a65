-- When the stored bytes of a backup are read again. Those of earlier versions are, one after the other.
ALTER TABLE backups ADD COLUMN bytes_due_at TIMESTAMP;
UPDATE backups SET bytes_due_at = finished_at WHERE state = 'complete' AND proof_at IS NULL;
CREATE INDEX backups_by_bytes_due ON backups (bytes_due_at) WHERE bytes_due_at IS NOT NULL;
