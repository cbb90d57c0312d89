-- How far the tasks that read something else than a source table have come.
CREATE TABLE etl.position (
    name TEXT PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE etl.position IS 'How far a reader has come, such as monitor_pipelines in the DAG runs';
