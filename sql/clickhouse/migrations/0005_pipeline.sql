-- What a run carries was called a subject. A column of the sorting key cannot be renamed, so the rows are
-- copied, by the position of their columns: that is right for either name, and so safe to repeat.
DROP TABLE IF EXISTS dwh.etl_run__renamed SYNC;

CREATE TABLE dwh.etl_run__renamed (
    run_id String,
    pipeline LowCardinality(String),
    applied_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (pipeline, applied_at, run_id);

INSERT INTO dwh.etl_run__renamed SELECT * FROM dwh.etl_run;  -- noqa: AM04

EXCHANGE TABLES dwh.etl_run__renamed AND dwh.etl_run;

DROP TABLE dwh.etl_run__renamed SYNC;
