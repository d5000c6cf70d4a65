-- The register of each deployment that has or had a backup: what stands beside its backups and says which should be
-- there. `number`: that of the set of its backups as it is, one more with each change. `written`: that of the register
-- which was stored last; 0: nobody knows of one. `signed_under`: the key of the ring that signed it. `called_at`: when
-- was looked last whether all of its backups are there.
CREATE TABLE backup_registers (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    written BIGINT NOT NULL,
    signed_under TEXT NOT NULL,
    called_at TIMESTAMP
);
CREATE INDEX backup_registers_due ON backup_registers (deployment_id) WHERE written <> number;
CREATE INDEX backup_registers_signed ON backup_registers (signed_under);
CREATE INDEX backup_registers_called ON backup_registers (called_at);
CREATE INDEX backups_of_deployment ON backups (deployment_id);
INSERT INTO backup_registers (deployment_id, number, written, signed_under)
    SELECT DISTINCT deployment_id, 1, 0, '' FROM backups WHERE state = 'complete';
