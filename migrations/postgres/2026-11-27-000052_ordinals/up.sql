-- The order in which things were asked for, as a number: the clock may be set back in between. What is
-- there keeps the order that it had.
ALTER TABLE operations ADD COLUMN ordinal BIGINT NOT NULL DEFAULT 0;
ALTER TABLE backups ADD COLUMN ordinal BIGINT NOT NULL DEFAULT 0;
-- How many backups of its instance had the same name but for this number.
ALTER TABLE backups ADD COLUMN namesake INTEGER NOT NULL DEFAULT 0;
-- The place of the operation that made it; nothing of an earlier one with its id comes after it.
ALTER TABLE instances ADD COLUMN ordinal BIGINT NOT NULL DEFAULT 0;

UPDATE operations SET ordinal = o.n
  FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM operations) AS o
 WHERE o.id = operations.id;
UPDATE backups SET ordinal = b.n
  FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM backups) AS b
 WHERE b.id = backups.id;
UPDATE instances SET ordinal = coalesce(
    (SELECT min(o.ordinal) FROM operations o
      WHERE o.instance_id = instances.id AND o.created_at >= instances.created_at), 0);

CREATE INDEX operations_by_ordinal ON operations (ordinal, id);
CREATE INDEX operations_of_instance_by_ordinal ON operations (instance_id, ordinal);
CREATE INDEX backups_by_ordinal ON backups (ordinal);
DROP INDEX operations_of_instance;
DROP INDEX operations_by_creation;
