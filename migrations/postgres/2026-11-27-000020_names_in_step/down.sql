-- What an instance was called at first is not known any more; it keeps its name.
SELECT 1;
