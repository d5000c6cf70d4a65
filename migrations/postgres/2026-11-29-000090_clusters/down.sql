DROP TRIGGER audit_is_not_emptied ON audit;
DROP TABLE brokers;
DROP TABLE clusters;
