DROP INDEX instances_usable;
