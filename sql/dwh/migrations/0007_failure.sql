-- Why a run failed or stands half-published, as its pages show it; runs that failed before keep their
-- message. And the DAG runs that the pipeline-info service refused.
ALTER TABLE etl.run ADD COLUMN failure JSONB;
COMMENT ON COLUMN etl.run.failure IS 'Why: {"task", "table", "rule", "count", "sample", "message", "remedy"}';

UPDATE etl.run
SET
    failure = jsonb_build_object(
        'task', NULL, 'table', NULL, 'rule', NULL, 'count', NULL, 'sample', '[]'::JSONB,
        'message', coalesce(message, 'the run failed'), 'remedy', 'Read the log of its DAG run'
    )
WHERE status = 'failed';

CREATE TABLE etl.refused_run (
    dag_id TEXT NOT NULL,
    dag_run_id TEXT NOT NULL,
    ended_at TIMESTAMPTZ NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    refused_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, dag_run_id)
);
COMMENT ON TABLE etl.refused_run IS 'DAG runs that pipeline-info refused: set aside, the later ones were posted';
COMMENT ON COLUMN etl.refused_run.status IS 'The HTTP status of the refusal';
COMMENT ON COLUMN etl.refused_run.reason IS 'What the service said';
