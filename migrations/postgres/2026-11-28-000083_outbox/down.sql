DROP TABLE couriers;
DROP TABLE outbox;
DROP TABLE told_alerts;
