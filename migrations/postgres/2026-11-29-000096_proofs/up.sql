-- What is known of whether a backup can be restored, and when the next proof of it is due; none: it needs no
-- further one. Of backups that an earlier version took, the newest of each kind is proved.
ALTER TABLE backups ADD COLUMN proof TEXT;
ALTER TABLE backups ADD COLUMN proof_at TIMESTAMP;
UPDATE backups SET proof_at = finished_at WHERE state = 'complete' AND ordinal = (
    SELECT max(others.ordinal) FROM backups AS others
    WHERE others.instance_id = backups.instance_id
        AND others.kind = backups.kind AND others.state = 'complete'
);
CREATE INDEX backups_by_proof ON backups (proof_at) WHERE proof_at IS NOT NULL;
