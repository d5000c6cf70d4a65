-- The plans of a broker's catalog, as JSON: pairs of the offering's id and its own; none where an older version of the
-- broker has said so.
ALTER TABLE brokers ADD COLUMN plans TEXT;
