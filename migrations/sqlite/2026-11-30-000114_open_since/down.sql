ALTER TABLE seen_states DROP COLUMN open_since;
