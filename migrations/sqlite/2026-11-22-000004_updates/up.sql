-- What an update changes: from, path, request.
ALTER TABLE operations ADD COLUMN change TEXT;
