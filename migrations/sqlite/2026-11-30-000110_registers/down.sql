DROP INDEX backups_of_deployment;
DROP TABLE backup_registers;
