DROP TABLE provenances;
