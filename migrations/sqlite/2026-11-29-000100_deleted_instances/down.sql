DROP TABLE deleted_instances;
