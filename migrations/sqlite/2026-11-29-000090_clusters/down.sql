DROP TABLE brokers;
DROP TABLE clusters;
