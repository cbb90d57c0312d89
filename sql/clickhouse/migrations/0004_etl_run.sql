-- Which runs these tables show; a published run that is missing here is applied by the next publish.
CREATE TABLE IF NOT EXISTS dwh.etl_run (
    run_id String,
    subject LowCardinality(String),
    applied_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (subject, run_id);
