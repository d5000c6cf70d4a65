DROP INDEX instances_of_tenant;
