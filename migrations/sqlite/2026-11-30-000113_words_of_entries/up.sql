-- What an operation does, in words, where that is more than its kind says: operations are forgotten long before
-- what is remembered of them.
ALTER TABLE audit ADD COLUMN words TEXT;
