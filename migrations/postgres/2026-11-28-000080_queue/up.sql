-- Which operation of an instance comes next, in each of the lines that it waits in: those of a kind,
-- asked for or not, on a cluster. Kept by the transactions that change operations; filled at the next
-- start with what waits by then.
CREATE TABLE waiting (
    instance_id  TEXT NOT NULL,
    line         TEXT NOT NULL,
    -- Whoever the instance belongs to; empty when it is gone.
    payer        TEXT NOT NULL,
    due          TIMESTAMP NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (instance_id, line)
);
CREATE INDEX waiting_of_payer ON waiting (line, payer, due, operation_id);

-- The oldest of these of each payer, so that a burst of one is passed in one step.
CREATE TABLE lanes (
    line         TEXT NOT NULL,
    payer        TEXT NOT NULL,
    due          TIMESTAMP NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (line, payer)
);
CREATE INDEX lanes_by_age ON lanes (line, due, operation_id);

CREATE INDEX operations_active_of_instance ON operations (instance_id, ordinal, id)
    WHERE state IN ('queued', 'running');
CREATE INDEX operations_active_of_kind ON operations (kind, instance_id)
    WHERE state IN ('queued', 'running');

-- What is placed on each cluster, which every provision asks for.
CREATE TABLE placed (
    cluster_id TEXT PRIMARY KEY NOT NULL,
    units      BIGINT NOT NULL,
    instances  BIGINT NOT NULL
);
INSERT INTO placed SELECT cluster_id, sum(units), count(*) FROM deployments GROUP BY cluster_id;
CREATE FUNCTION count_placed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE placed SET units = units - old.units, instances = instances - 1
            WHERE cluster_id = old.cluster_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO placed VALUES (new.cluster_id, new.units, 1)
            ON CONFLICT (cluster_id) DO UPDATE
            SET units = placed.units + new.units, instances = placed.instances + 1;
    END IF;
    RETURN NULL;
END;
$$;
CREATE TRIGGER deployments_are_placed AFTER INSERT OR DELETE OR UPDATE OF units ON deployments
    FOR EACH ROW EXECUTE FUNCTION count_placed();
