-- Which target shows a run, for any number of targets; what was known of ClickHouse is carried over. Runs of
-- events had a time there although ClickHouse has nothing of them: they have no target.
CREATE TABLE etl.run_target (
    run_id TEXT NOT NULL REFERENCES etl.run (run_id),
    target TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'failed', 'shown')),
    shown_at TIMESTAMPTZ,
    failure JSONB,
    PRIMARY KEY (run_id, target),
    CHECK ((state = 'shown') = (shown_at IS NOT NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL))
);
COMMENT ON TABLE etl.run_target IS 'Of each published run: which targets show it, and why one does not';
COMMENT ON COLUMN etl.run_target.target IS 'Such as clickhouse';
COMMENT ON COLUMN etl.run_target.state IS 'pending, failed or shown';
COMMENT ON COLUMN etl.run_target.shown_at IS 'The target shows this run since';
COMMENT ON COLUMN etl.run_target.failure IS 'Why it does not, as in etl.run';

INSERT INTO etl.run_target (run_id, target, state, shown_at, failure)
SELECT
    run.run_id,
    'clickhouse' AS target,
    CASE
        WHEN run.clickhouse_at IS NOT NULL THEN 'shown'
        WHEN run.failure IS NOT NULL THEN 'failed'
        ELSE 'pending'
    END AS state,
    run.clickhouse_at AS shown_at,
    CASE WHEN run.clickhouse_at IS NULL THEN run.failure END AS failure
FROM etl.run AS run
WHERE
    run.status = 'published'
    AND NOT EXISTS (SELECT 1 FROM etl.ledger AS line WHERE line.run_id = run.run_id AND line.hop = 'raw=curated');

UPDATE etl.run SET failure = NULL, message = NULL WHERE status = 'published';
UPDATE etl.ledger SET hop = 'clickhouse=mart' WHERE hop = 'model=mart';

ALTER TABLE etl.run DROP COLUMN clickhouse_at;
COMMENT ON COLUMN etl.ledger.hop
IS 'source=raw, raw=accepted, accepted=ods, ods=model, postgres=<target>, <target>=mart';

CREATE VIEW etl.run_state AS
SELECT
    run.run_id,
    run.pipeline,
    run.dag_id,
    run.dag_run_id,
    run.status,
    run.started_at,
    run.published_at,
    targets.missing,
    coalesce(run.failure, targets.failure) AS failure,
    CASE
        WHEN run.status = 'published' AND targets.missing = '{}' THEN greatest(run.published_at, targets.shown_at)
    END AS shown_at
FROM etl.run AS run
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(one.target ORDER BY one.target) FILTER (WHERE one.state != 'shown'), '{}') AS missing,
        max(one.shown_at) AS shown_at,
        (array_agg(one.failure ORDER BY one.target) FILTER (WHERE one.failure IS NOT NULL))[1] AS failure
    FROM etl.run_target AS one
    WHERE one.run_id = run.run_id
) AS targets;
COMMENT ON VIEW etl.run_state IS 'Runs with what is known of their targets; shown_at: all of them show it since';
